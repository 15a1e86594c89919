/** An answer while it arrives. Its text goes straight to whoever writes it to the page, not through the state. */
import type { Run, RunEvent } from "@/net/home/api";
import type { RunSink } from "@/net/home/following-run";
import { bytesOf, type Kind, type Segment } from "@/net/home/overlap";

export interface AnswerWriter {
  onText(text: string): void;
  onThought(text: string): void;
  /** All that was written so far is void. */
  onRestart(): void;
  onEnd(): void;
}

/**
 * What the arriving answer is at. `returning`: the bridge was started anew, and the engine first says once more what
 * is here.
 */
export type Phase = "waiting" | "loading" | "thinking" | "writing" | "reattaching" | "returning";

export interface Figures {
  /** From sending to the first token, in milliseconds; `null` if it was not sent from here. */
  readonly firstTokenMs: number | null;
  readonly tokens: number;
  /** Tokens a second after the first; `null` if this page did not see all of them come. */
  readonly tokensPerSecond: number | null;
}

export class LiveAnswer implements RunSink {
  text = "";
  thought = "";
  offset = 0;
  #segments: Segment[] = [];
  #state: RunEvent["state"] = "queued";
  #reattaching = false;
  #writer: AnswerWriter | null = null;
  #firstAt: number | null = null;
  #lastAt = 0;

  /**
   * @param startedAt - when it was asked for here, on `now`'s clock; `null` if it was not.
   * @param onPhase - told when it comes to something else.
   */
  constructor(
    readonly startedAt: number | null,
    readonly now: () => number,
    readonly onPhase: () => void,
  ) {}

  get segments(): readonly Segment[] {
    return this.#segments;
  }

  get phase(): Phase {
    if (this.#reattaching) return "reattaching";
    const asked = this.#state === "queued" || this.#state === "loading";
    if (asked && this.offset > 0) return "returning";
    if (this.text !== "") return "writing";
    if (this.thought !== "") return "thinking";
    return this.#state === "loading" ? "loading" : "waiting";
  }

  /** Puts what an earlier page had of it in place; before anything else. */
  restore(segments: readonly Segment[]): void {
    if (segments.length > 0) this.#state = "streaming";
    for (const { kind, text } of segments) this.#add(kind, text);
  }

  /** Hands all text so far, then every further piece, to one writer. Returns how to end that. */
  write(writer: AnswerWriter): () => void {
    this.#writer = writer;
    if (this.thought !== "") writer.onThought(this.thought);
    if (this.text !== "") writer.onText(this.text);
    return () => {
      if (this.#writer === writer) this.#writer = null;
    };
  }

  take(kind: Kind, text: string): void {
    const before = this.phase;
    this.#firstAt ??= this.now();
    this.#lastAt = this.now();
    this.#add(kind, text);
    if (this.phase !== before) this.onPhase();
  }

  #add(kind: Kind, text: string): void {
    this.offset += bytesOf(text);
    const last = this.#segments.at(-1);
    if (last?.kind === kind) this.#segments[this.#segments.length - 1] = { kind, text: last.text + text };
    else this.#segments.push({ kind, text });
    if (kind === "content") {
      this.text += text;
      this.#writer?.onText(text);
    } else if (kind === "thinking") {
      this.thought += text;
      this.#writer?.onThought(text);
    }
  }

  restart(): void {
    this.text = "";
    this.thought = "";
    this.offset = 0;
    this.#segments = [];
    this.#writer?.onRestart();
    this.onPhase();
  }

  is(state: RunEvent["state"]): void {
    this.#change(() => {
      this.#state = state;
    });
  }

  reattaching(reattaching: boolean): void {
    this.#change(() => {
      this.#reattaching = reattaching;
    });
  }

  #change(change: () => void): void {
    const before = this.phase;
    change();
    if (this.phase !== before) this.onPhase();
  }

  end(): void {
    this.#writer?.onEnd();
    this.#writer = null;
  }

  /** The lines of tools that the model calls, one JSON text each. */
  get toolCalls(): readonly string[] {
    const calls = this.#segments.filter(({ kind }) => kind === "tool_call").map(({ text }) => text);
    return calls.join("").split("\n").slice(0, -1);
  }

  /** What is to be told of an answer that has ended; `null` if the engine did not count. */
  figures({ answer_tokens: tokens }: Run): Figures | null {
    if (tokens === null) return null;
    const { startedAt } = this;
    if (startedAt === null || this.#firstAt === null)
      return { tokens, firstTokenMs: null, tokensPerSecond: null };
    const seconds = (this.#lastAt - this.#firstAt) / 1000;
    return {
      firstTokenMs: Math.round(this.#firstAt - startedAt),
      tokens,
      tokensPerSecond: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
    };
  }
}
