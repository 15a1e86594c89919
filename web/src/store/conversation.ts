/** The current conversation: what was said, the answer that arrives, and its keeping in the browser. */
import { create } from "zustand";
import { CompletionParser } from "@/net/completion";
import { Exchange, type Outcome } from "@/net/exchange";
import { randomId } from "@/net/random-id";
import { LiveAnswer } from "@/store/live-answer";
import {
  type AnswerMessage,
  asChatMessages,
  decodeConversation,
  type Message,
  type SavedConversation,
} from "@/store/messages";
import { checkSession } from "@/store/session";
import { load, remove, save } from "@/store/storage";

const KEY = "c2l.conversation.v1";
/** At most this much of an arriving answer is lost when the browser dies. */
const SAVE_EVERY_MS = 1_000;

/** What the arriving answer is at; `null` if none arrives. */
export type Phase = "waiting" | "thinking" | "writing" | "reattaching" | null;

interface Arriving {
  readonly id: string;
  readonly live: LiveAnswer;
  readonly abort: AbortController;
}

interface ConversationState {
  readonly messages: readonly Message[];
  readonly phase: Phase;
}

export const useConversation = create<ConversationState>(() => ({ messages: [], phase: null }));

let owner: string | null = null;
let arriving: Arriving | null = null;
let saveTimer: ReturnType<typeof setTimeout> | undefined;

/** Shows the conversation that this browser keeps for the user; another user's is removed. */
export function openConversation(user: string | null): void {
  owner = user;
  const saved = load(KEY, decodeConversation);
  if (saved !== null && saved.user !== user) remove(KEY);
  if (saved?.user === user) useConversation.setState({ messages: saved.messages });
}

/** The answer that arrives under this id, to be written to the page; `null` if it does not arrive (any more). */
export function liveAnswer(id: string): LiveAnswer | null {
  return arriving?.id === id ? arriving.live : null;
}

export function send(text: string, model: string): void {
  if (arriving !== null) return;
  const message: Message = { id: randomId(), role: "user", text };
  void answer([...useConversation.getState().messages, message], model);
}

/** Asks again for the last answer; what there was of it goes. */
export function retry(model: string): void {
  const { messages } = useConversation.getState();
  if (arriving !== null || messages.at(-1)?.role !== "assistant") return;
  void answer(messages.slice(0, -1), model);
}

/** Closes the request, which ends the work at the engine. */
export function stop(): void {
  arriving?.abort.abort();
}

export function clear(): void {
  stop();
  arriving = null;
  clearTimeout(saveTimer);
  saveTimer = undefined;
  remove(KEY);
  useConversation.setState({ messages: [], phase: null });
}

async function answer(history: readonly Message[], model: string): Promise<void> {
  const current: Arriving = {
    id: randomId(),
    live: new LiveAnswer(performance.now()),
    abort: new AbortController(),
  };
  arriving = current;
  useConversation.setState({ messages: [...history, newAnswer(current.id, model)], phase: "waiting" });
  scheduleSave();
  const parser = new CompletionParser();
  const sink = {
    onBytes: (bytes: Uint8Array) => {
      const now = performance.now();
      let last = false;
      for (const event of parser.push(bytes)) last = current.live.take(event, now) || last;
      setPhase(current, phaseOf(current.live));
      scheduleSave();
      return last;
    },
    onReattaching: (reattaching: boolean) =>
      setPhase(current, reattaching ? "reattaching" : phaseOf(current.live)),
  };
  const request = {
    model,
    messages: asChatMessages(history),
    stream: true,
    stream_options: { include_usage: true },
  };
  let outcome: Outcome;
  try {
    outcome = await new Exchange(sink, current.abort.signal).run("/v1/chat/completions", request);
  } catch (error) {
    const detail = error instanceof Error ? error.message : "";
    outcome = {
      kind: "cut-short",
      problem: { slug: null, title: "The answer was not understood", detail, status: 0 },
    };
    current.abort.abort();
  }
  finish(current, outcome);
}

function newAnswer(id: string, model: string): AnswerMessage {
  return {
    id,
    role: "assistant",
    text: "",
    thought: "",
    model,
    outcome: "streaming",
    problem: null,
    figures: null,
  };
}

function phaseOf(live: LiveAnswer): Phase {
  if (live.text !== "") return "writing";
  return live.thought === "" ? "waiting" : "thinking";
}

function setPhase(current: Arriving, phase: Phase): void {
  if (arriving === current && useConversation.getState().phase !== phase) useConversation.setState({ phase });
}

function finish(current: Arriving, outcome: Outcome): void {
  const { id, live } = current;
  live.end();
  if (arriving === current) arriving = null;
  const messages = useConversation
    .getState()
    .messages.map((message) =>
      message.id === id && message.role === "assistant" ? ended(message, live, outcome) : message,
    );
  useConversation.setState({ messages, phase: null });
  if (messages.length > 0) saveNow();
  if ("problem" in outcome && outcome.problem.status === 401) void checkSession();
}

/** Returns the message as it stands when its stream has ended. */
function ended(message: AnswerMessage, live: LiveAnswer, outcome: Outcome): AnswerMessage {
  const { text, thought } = live;
  const base = { ...message, text, thought, figures: live.figures() };
  if (live.problem !== null)
    return { ...base, outcome: text === "" ? "failed" : "cut-short", problem: live.problem };
  switch (outcome.kind) {
    case "complete":
      return { ...base, outcome: live.finishReason === "length" ? "limited" : "done" };
    case "stopped":
      return { ...base, outcome: "stopped" };
    default:
      return { ...base, outcome: outcome.kind, problem: outcome.problem };
  }
}

function scheduleSave(): void {
  saveTimer ??= setTimeout(saveNow, SAVE_EVERY_MS);
}

function saveNow(): void {
  clearTimeout(saveTimer);
  saveTimer = undefined;
  const messages = useConversation.getState().messages.map(withLiveText);
  save(KEY, { user: owner, messages } satisfies SavedConversation);
}

function withLiveText(message: Message): Message {
  const live = liveAnswer(message.id);
  if (live === null || message.role !== "assistant") return message;
  return { ...message, text: live.text, thought: live.thought };
}

window.addEventListener("pagehide", () => {
  if (arriving !== null) saveNow();
});
