/** What has to be read again after changes at a home. Pure. */
import type { Change } from "@/net/home/api";
import type { Known } from "@/store/home/known";
import { messageOf } from "@/store/home/tree";

export interface Wanted {
  /** The whole list of conversations. */
  readonly list: boolean;
  /** Conversations of which title, place in the list or active path may be others. */
  readonly heads: ReadonlySet<string>;
  /** Conversations that have to be read whole. */
  readonly wholes: ReadonlySet<string>;
  /** New messages, with their conversations: to be read unless they are known by then, for they may be our own. */
  readonly messages: ReadonlyMap<string, string>;
  /** Which runs go on. */
  readonly running: boolean;
}

export const NONE_WANTED: Wanted = {
  list: false,
  heads: new Set(),
  wholes: new Set(),
  messages: new Map(),
  running: false,
};
export const ALL_WANTED: Wanted = { ...NONE_WANTED, list: true, running: true };

export function isNothing({ list, heads, wholes, messages, running }: Wanted): boolean {
  return !list && !running && heads.size === 0 && wholes.size === 0 && messages.size === 0;
}

export function bothWanted(one: Wanted, other: Wanted): Wanted {
  return {
    list: one.list || other.list,
    heads: new Set([...one.heads, ...other.heads]),
    wholes: new Set([...one.wholes, ...other.wholes]),
    messages: new Map([...one.messages, ...other.messages]),
    running: one.running || other.running,
  };
}

export interface Digest {
  readonly wanted: Wanted;
  /** Conversations that are not there any more. */
  readonly gone: ReadonlySet<string>;
}

/**
 * A message does not change but when its run ends, which whoever watches that run sees; so of a message that is known
 * nothing has to be read.
 */
export function digest(known: Known, changes: readonly Change[]): Digest {
  const heads = new Set<string>();
  const wholes = new Set<string>();
  const messages = new Map<string, string>();
  const gone = new Set<string>();
  let running = false;
  for (const { kind, id, conversation, gone: isGone } of changes) {
    if (kind === "conversation") {
      if (isGone) {
        gone.add(id);
        heads.delete(id);
        wholes.delete(id);
      } else {
        gone.delete(id);
        heads.add(id);
      }
    } else if (kind === "run") running = true;
    else if (kind === "message" && isGone) {
      messages.delete(id);
      if (isKnown(known, conversation, id)) wholes.add(conversation);
    } else if (kind === "message") messages.set(id, conversation);
  }
  return { wanted: { list: false, heads, wholes, messages, running }, gone };
}

function isKnown(known: Known, conversation: string, message: string): boolean {
  const talk = known.talks.get(conversation);
  return talk !== undefined && messageOf(talk, message) !== undefined;
}

/** The conversations that have to be read whole, as it is known by now. */
export function wholesOf(known: Known, { wholes, messages }: Wanted): ReadonlySet<string> {
  const missing = [...messages].filter(([id, conversation]) => !isKnown(known, conversation, id));
  return new Set([...wholes, ...missing.map(([, conversation]) => conversation)]);
}
