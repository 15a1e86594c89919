/** Messages as values, and reading them back from storage. Pure. */
import { type Fields, fields, list, numberOr, oneOf, text, textOr } from "@/net/decode";
import type { Problem } from "@/net/problem";

const OUTCOMES = ["streaming", "done", "limited", "stopped", "cut-short", "failed"] as const;

/**
 * How an answer ended. `limited`: complete as a stream, but a length limit ended it. `cut-short`: the rest of the
 * stream could not be had. `failed`: nothing was answered.
 */
export type AnswerOutcome = (typeof OUTCOMES)[number];

export interface Figures {
  /** From sending to the first token, in milliseconds. */
  readonly firstTokenMs: number;
  readonly tokens: number;
  /** Tokens a second after the first; `null` if too few to tell. */
  readonly tokensPerSecond: number | null;
}

export interface UserMessage {
  readonly id: string;
  readonly role: "user";
  readonly text: string;
}

export interface AnswerMessage {
  readonly id: string;
  readonly role: "assistant";
  readonly text: string;
  /** What a reasoning model wrote before its answer. */
  readonly thought: string;
  readonly model: string;
  readonly outcome: AnswerOutcome;
  readonly problem: Problem | null;
  readonly figures: Figures | null;
}

export type Message = UserMessage | AnswerMessage;

export interface SavedConversation {
  readonly user: string | null;
  readonly messages: readonly Message[];
}

const CLOSED_MEANWHILE: Problem = {
  slug: null,
  title: "The page was closed while the answer arrived",
  detail: "What had arrived by then is shown.",
  status: 0,
};

/** @throws DecodeError - the stored value is not a conversation. */
export function decodeConversation(value: unknown): SavedConversation {
  const document = fields(value);
  return { user: textOr(document["user"], null), messages: list(document["messages"]).map(decodeMessage) };
}

function decodeMessage(value: unknown): Message {
  const document = fields(value);
  const id = text(document["id"]);
  if (oneOf(document["role"], ["user", "assistant"]) === "user")
    return { id, role: "user", text: text(document["text"]) };
  const outcome = oneOf(document["outcome"], OUTCOMES);
  const interrupted = outcome === "streaming";
  return {
    id,
    role: "assistant",
    text: text(document["text"]),
    thought: text(document["thought"]),
    model: text(document["model"]),
    outcome: interrupted ? "cut-short" : outcome,
    problem: interrupted ? CLOSED_MEANWHILE : decodeProblem(document["problem"]),
    figures: decodeFigures(document["figures"]),
  };
}

function decodeProblem(value: unknown): Problem | null {
  if (value === null) return null;
  const document: Fields = fields(value);
  return {
    slug: textOr(document["slug"], null),
    title: text(document["title"]),
    detail: text(document["detail"]),
    status: numberOr(document["status"], 0),
  };
}

function decodeFigures(value: unknown): Figures | null {
  if (value === null) return null;
  const document = fields(value);
  return {
    firstTokenMs: numberOr(document["firstTokenMs"], 0),
    tokens: numberOr(document["tokens"], 0),
    tokensPerSecond: numberOr(document["tokensPerSecond"], null),
  };
}

/** What the model is told of the conversation: everything said, but no empty answers. */
export function asChatMessages(messages: readonly Message[]): { role: string; content: string }[] {
  return messages.filter(({ text }) => text !== "").map(({ role, text }) => ({ role, content: text }));
}
