/**
 * A conversation as a tree of messages: an edit is a sibling of what was edited, an answer made anew one of the first
 * answer. One path is active; it ends at the conversation's leaf. Pure.
 */
import type { Message, Run } from "@/net/home/api";

export interface Talk {
  /** The oldest first: a message stands after its parent. */
  readonly messages: readonly Message[];
  /** By id. Of very long conversations only the newest. */
  readonly runs: ReadonlyMap<string, Run>;
}

export const EMPTY_TALK: Talk = { messages: [], runs: new Map() };

interface Index {
  readonly byId: ReadonlyMap<string, Message>;
  /** By parent; "" for those without. In their order. */
  readonly children: ReadonlyMap<string, readonly Message[]>;
}

/** One index for each list of messages, for as long as that is used. */
const indices = new WeakMap<readonly Message[], Index>();

function indexOf(messages: readonly Message[]): Index {
  const known = indices.get(messages);
  if (known !== undefined) return known;
  const byId = new Map<string, Message>();
  const children = new Map<string, Message[]>();
  for (const message of messages) {
    byId.set(message.id, message);
    const siblings = children.get(message.parent ?? "");
    if (siblings === undefined) children.set(message.parent ?? "", [message]);
    else siblings.push(message);
  }
  const made = { byId, children };
  indices.set(messages, made);
  return made;
}

export function messageOf(talk: Talk, id: string): Message | undefined {
  return indexOf(talk.messages).byId.get(id);
}

/** The messages from the beginning to a leaf; empty when the leaf is not there. */
export function pathTo(talk: Talk, leaf: string | null): readonly Message[] {
  const { byId } = indexOf(talk.messages);
  const path: Message[] = [];
  for (let at = leaf === null ? undefined : byId.get(leaf); at !== undefined; ) {
    path.push(at);
    // A parent stands before its child; what does not would be a circle.
    if (path.length > talk.messages.length) return [];
    at = at.parent === null ? undefined : byId.get(at.parent);
  }
  return path.reverse();
}

/** A message and those beside it, in their order. */
export function siblingsOf(talk: Talk, message: Message): readonly Message[] {
  return indexOf(talk.messages).children.get(message.parent ?? "") ?? [];
}

/** Where a path ends that goes through a message and then always to the newest. */
export function newestBelow(talk: Talk, id: string): string {
  const { children } = indexOf(talk.messages);
  let at = id;
  for (let steps = 0; steps <= talk.messages.length; steps += 1) {
    const next = children.get(at)?.at(-1);
    if (next === undefined) break;
    at = next.id;
  }
  return at;
}

/** The talk with a message at its end; one that is there stays as it is. */
export function withMessage(talk: Talk, message: Message): Talk {
  if (messageOf(talk, message.id) !== undefined) return talk;
  return { ...talk, messages: [...talk.messages, message] };
}

/** The talk with another form of one of its messages. */
export function changedMessage(talk: Talk, id: string, change: Partial<Message>): Talk {
  if (messageOf(talk, id) === undefined) return talk;
  return {
    ...talk,
    messages: talk.messages.map((message) => (message.id === id ? { ...message, ...change } : message)),
  };
}

export function withRun(talk: Talk, run: Run): Talk {
  return { ...talk, runs: new Map(talk.runs).set(run.id, run) };
}

export function isActive({ state }: Pick<Run, "state">): boolean {
  return state === "queued" || state === "loading" || state === "streaming";
}

/** The run that writes or wrote a message, as far as it is known. */
export function runOf(talk: Talk, message: Message): Run | null {
  return message.run === null ? null : (talk.runs.get(message.run) ?? null);
}
