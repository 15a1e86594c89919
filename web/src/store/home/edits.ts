/**
 * What somebody here wants of a home: shown at once, laid over what is known until the home has said so itself. Whoever
 * asks chooses the ids, so that asking again starts nothing twice. Pure.
 */
import type { Attached, Conversation, Message, Run } from "@/net/home/api";
import { type Known, withHeads, withNew, without, withTalk } from "@/store/home/known";
import { messageOf, newestBelow, withMessage, withRun } from "@/store/home/tree";

interface Base {
  readonly conversation: string;
  /** When it was wanted, in seconds since 1970. */
  readonly at: number;
}

export interface Answer extends Base {
  readonly kind: "answer";
  /** The message to answer. */
  readonly parent: string;
  readonly run: string;
  readonly model: string;
  /** Id of the message that is written, once the home has told it. */
  readonly message: string | null;
}

export type Edit =
  | (Base & { readonly kind: "create"; readonly title: string })
  | (Base & { readonly kind: "rename"; readonly title: string })
  | (Base & { readonly kind: "pin"; readonly pinned: boolean })
  | (Base & { readonly kind: "delete" })
  | (Base & {
      readonly kind: "say";
      readonly message: string;
      readonly parent: string | null;
      readonly content: string;
      readonly attachments: readonly Attached[];
    })
  /** `id`: of the new sibling of `message`. */
  | (Base & {
      readonly kind: "rewrite";
      readonly message: string;
      readonly id: string;
      readonly content: string;
    })
  | (Base & { readonly kind: "choose"; readonly message: string })
  | Answer
  | (Base & { readonly kind: "stop"; readonly run: string });

/** An edit on its way. */
export interface Pending {
  readonly edit: Edit;
  /** The turn of reading in which the home took it; it stays until a later one has read what came of it. */
  readonly taken: number | null;
}

/** Lays edits over what is known. What is known already changes nothing. */
export function withEdits(known: Known, pending: readonly Pending[]): Known {
  return pending.reduce((state, { edit }) => withEdit(state, edit), known);
}

export function withEdit(known: Known, edit: Edit): Known {
  const { conversation, at } = edit;
  switch (edit.kind) {
    case "create":
      return known.heads.has(conversation) ? known : withNew(known, newHead(conversation, edit.title, at));
    case "rename":
      return changedHead(known, conversation, { title: edit.title });
    case "pin":
      return changedHead(known, conversation, { pinned: edit.pinned });
    case "delete":
      return without(known, conversation);
    case "say":
      return added(known, conversation, at, said(edit));
    case "rewrite": {
      const old = messageIn(known, conversation, edit.message);
      if (old === undefined) return known;
      const { content, id } = edit;
      return added(known, conversation, at, { ...old, id, content, created: at });
    }
    case "choose": {
      const talk = known.talks.get(conversation);
      if (talk === undefined || messageOf(talk, edit.message) === undefined) return known;
      return changedHead(known, conversation, { leaf: newestBelow(talk, edit.message) });
    }
    case "answer":
      return answered(known, edit);
    case "stop":
      return known;
  }
}

function newHead(id: string, title: string, at: number): Conversation {
  return { id, title, pinned: false, created: at, updated: at, leaf: null };
}

function messageIn(known: Known, conversation: string, id: string): Message | undefined {
  const talk = known.talks.get(conversation);
  return talk === undefined ? undefined : messageOf(talk, id);
}

function changedHead(known: Known, conversation: string, change: Partial<Conversation>): Known {
  const head = known.heads.get(conversation);
  return head === undefined ? known : withHeads(known, [{ ...head, ...change }]);
}

/** With a message that is the end of the active path. */
function added(known: Known, conversation: string, at: number, message: Message): Known {
  const { parent } = message;
  if (parent !== null && messageIn(known, conversation, parent) === undefined) return known;
  const grown = withTalk(known, conversation, (talk) => withMessage(talk, message));
  const updated = Math.max(at, known.heads.get(conversation)?.updated ?? 0);
  return changedHead(grown, conversation, { leaf: message.id, updated });
}

function said({ message, parent, content, attachments, at }: Edit & { readonly kind: "say" }): Message {
  return {
    id: message,
    parent,
    role: "user",
    content,
    thinking: "",
    tool_calls: [],
    model: "",
    created: at,
    attachments,
    run: null,
  };
}

function answered(known: Known, edit: Answer): Known {
  const { conversation, run, at } = edit;
  const talk = known.talks.get(conversation);
  if (talk === undefined || messageOf(talk, edit.parent) === undefined) return known;
  const there = talk.messages.find((message) => message.run === run);
  if (there !== undefined) return changedHead(known, conversation, { leaf: there.id });
  const grown = added(known, conversation, at, answerMessage(edit));
  const running = new Map(known.running).set(run, conversation);
  return withTalk({ ...grown, running }, conversation, (state) =>
    state.runs.has(run) ? state : withRun(state, queued(edit)),
  );
}

/** The message of an answer; until the home has named it, it has the run's id. */
export function answerMessage({ conversation: _, run, parent, model, message, at }: Answer): Message {
  return {
    id: message ?? provisional(run),
    parent,
    role: "assistant",
    content: "",
    thinking: "",
    tool_calls: [],
    model,
    created: at,
    attachments: [],
    run,
  };
}

function provisional(run: string): string {
  return `run:${run}`;
}

function queued(edit: Answer): Run {
  const { conversation, run: id, model, message, at } = edit;
  return {
    id,
    conversation,
    message: message ?? provisional(id),
    model,
    state: "queued",
    reason: "",
    detail: "",
    created: at,
    ended: null,
    size: 0,
    prompt_tokens: null,
    answer_tokens: null,
  };
}

/** Splits edits into those that can go on without one that was refused, and those that cannot, in their order. */
export function afterRefusal(
  pending: readonly Pending[],
  refused: Edit,
): { readonly kept: readonly Pending[]; readonly dropped: readonly Edit[] } {
  const lost = new Set<string>();
  const kept: Pending[] = [];
  const dropped: Edit[] = [];
  for (const each of pending) {
    const { edit } = each;
    if (edit === refused || needs(edit).some((id) => lost.has(id))) {
      dropped.push(edit);
      for (const id of makes(edit)) lost.add(id);
    } else kept.push(each);
  }
  return { kept, dropped };
}

function makes(edit: Edit): readonly string[] {
  switch (edit.kind) {
    case "create":
      return [edit.conversation];
    case "say":
      return [edit.message];
    case "rewrite":
      return [edit.id];
    case "answer":
      return [edit.run];
    default:
      return [];
  }
}

function needs(edit: Edit): readonly string[] {
  switch (edit.kind) {
    case "create":
      return [];
    case "say":
      return [edit.conversation, ...(edit.parent === null ? [] : [edit.parent])];
    case "rewrite":
    case "choose":
      return [edit.conversation, edit.message];
    case "answer":
      return [edit.conversation, edit.parent];
    case "stop":
      return [edit.conversation, edit.run];
    default:
      return [edit.conversation];
  }
}
