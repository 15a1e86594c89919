/** What is known of a home's conversations, and how it comes to be known. Pure. */
import type { Conversation, Message, Run, WholeConversation } from "@/net/home/api";
import {
  changedMessage,
  EMPTY_TALK,
  isActive,
  messageOf,
  type Talk,
  withMessage,
  withRun,
} from "@/store/home/tree";

export interface Known {
  /** By id. */
  readonly heads: ReadonlyMap<string, Conversation>;
  /** Conversations with their messages, as far as they were read. */
  readonly talks: ReadonlyMap<string, Talk>;
  /** Runs that go on, and in which conversation. */
  readonly running: ReadonlyMap<string, string>;
  /** Whether the list of conversations is all of them. */
  readonly listed: boolean;
}

export const NOTHING: Known = { heads: new Map(), talks: new Map(), running: new Map(), listed: false };

export function withHeads(known: Known, heads: readonly Conversation[]): Known {
  const all = new Map(known.heads);
  for (const head of heads) all.set(head.id, head);
  return { ...known, heads: all };
}

/** The list as it is now, whole: what is not in it is not there any more. */
export function withList(known: Known, heads: readonly Conversation[]): Known {
  const all = new Map(heads.map((head) => [head.id, head]));
  const talks = new Map([...known.talks].filter(([id]) => all.has(id)));
  return { ...known, heads: all, talks, listed: true };
}

export function without(known: Known, conversation: string): Known {
  if (!known.heads.has(conversation) && !known.talks.has(conversation)) return known;
  const heads = new Map(known.heads);
  const talks = new Map(known.talks);
  heads.delete(conversation);
  talks.delete(conversation);
  return { ...known, heads, talks };
}

export function withWhole(known: Known, { conversation, messages, runs }: WholeConversation): Known {
  const heads = new Map(known.heads).set(conversation.id, conversation);
  const talk: Talk = { messages, runs: new Map(runs.map((run) => [run.id, run])) };
  const running = new Map(known.running);
  for (const run of runs) {
    if (isActive(run)) running.set(run.id, run.conversation);
    else running.delete(run.id);
  }
  return { ...known, heads, talks: new Map(known.talks).set(conversation.id, talk), running };
}

/** Without the messages of any but these conversations. */
export function withTalksOf(known: Known, conversations: ReadonlySet<string>): Known {
  return { ...known, talks: new Map([...known.talks].filter(([id]) => conversations.has(id))) };
}

/** A conversation that was just begun is known to be empty. */
export function withNew(known: Known, head: Conversation): Known {
  const talks = known.talks.has(head.id) ? known.talks : new Map(known.talks).set(head.id, EMPTY_TALK);
  return { ...withHeads(known, [head]), talks };
}

/** Changes a conversation's talk, if it is known. */
export function withTalk(known: Known, conversation: string, change: (talk: Talk) => Talk): Known {
  const talk = known.talks.get(conversation);
  if (talk === undefined) return known;
  const changed = change(talk);
  return changed === talk ? known : { ...known, talks: new Map(known.talks).set(conversation, changed) };
}

export function learnMessage(known: Known, conversation: string, message: Message): Known {
  return withTalk(known, conversation, (talk) => withMessage(talk, message));
}

/**
 * A run as it is now; one that has ended does not begin again. It is part of the talk only once its message is: what it
 * writes would have no place.
 */
export function learnRun(known: Known, run: Run): Known {
  const learned = withTalk(known, run.conversation, (talk) => {
    const before = talk.runs.get(run.id);
    if (before !== undefined && !isActive(before)) return talk;
    return messageOf(talk, run.message) === undefined ? talk : withRun(talk, run);
  });
  const now = learned.talks.get(run.conversation)?.runs.get(run.id) ?? run;
  const running = new Map(known.running);
  if (isActive(now)) running.set(run.id, run.conversation);
  else running.delete(run.id);
  return { ...learned, running };
}

/** What a run has written, once it has ended. */
export interface Written {
  readonly content: string;
  readonly thinking: string;
  readonly tool_calls: readonly string[];
}

export function learnEnd(known: Known, run: Run, written: Written): Known {
  const learned = withTalk(known, run.conversation, (talk) => changedMessage(talk, run.message, written));
  return learnRun(learned, run);
}

/** The runs that go on now, all of them. */
export function withRunning(known: Known, runs: readonly Run[]): Known {
  const running = new Map(runs.map((run) => [run.id, run.conversation]));
  return runs.reduce(learnRun, { ...known, running });
}

/** The runs of a conversation that are thought to go on, though none of the home's do. */
export function overdueRuns(known: Known, conversation: string): readonly Run[] {
  const runs = [...(known.talks.get(conversation)?.runs.values() ?? [])];
  return runs.filter((run) => isActive(run) && !known.running.has(run.id));
}
