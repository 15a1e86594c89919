/** An answer while it arrives. Its text goes straight to whoever writes it to the page, not through the state. */
import type { CompletionEvent } from "@/net/completion";
import type { Problem } from "@/net/problem";
import type { Figures } from "@/store/messages";

export interface AnswerWriter {
  onText(text: string): void;
  onThought(text: string): void;
  onEnd(): void;
}

export class LiveAnswer {
  text = "";
  thought = "";
  problem: Problem | null = null;
  finishReason: string | null = null;
  #writer: AnswerWriter | null = null;
  #pieces = 0;
  #countedTokens: number | null = null;
  #firstAt: number | null = null;
  #lastAt = 0;

  /** @param startedAt - when the request was sent, on the clock of `take`'s `now`. */
  constructor(readonly startedAt: number) {}

  /** Hands all text so far, then every further piece, to one writer. Returns how to end that. */
  write(writer: AnswerWriter): () => void {
    this.#writer = writer;
    if (this.thought !== "") writer.onThought(this.thought);
    if (this.text !== "") writer.onText(this.text);
    return () => {
      if (this.#writer === writer) this.#writer = null;
    };
  }

  /** Takes one event at the time `now` (milliseconds). Returns true if it is the answer's last. */
  take(event: CompletionEvent, now: number): boolean {
    switch (event.kind) {
      case "text":
        this.#count(now);
        this.text += event.text;
        this.#writer?.onText(event.text);
        return false;
      case "thought":
        this.#count(now);
        this.thought += event.text;
        this.#writer?.onThought(event.text);
        return false;
      case "usage":
        this.#countedTokens = event.completionTokens;
        return false;
      case "finish":
        this.finishReason = event.reason;
        return false;
      case "error":
        this.problem = event.problem;
        return true;
      case "done":
        return true;
    }
  }

  end(): void {
    this.#writer?.onEnd();
    this.#writer = null;
  }

  /** `null` before the first token. */
  figures(): Figures | null {
    if (this.#firstAt === null) return null;
    // Engines send a token a piece; the engine's own count is better where it sends one.
    const tokens = this.#countedTokens ?? this.#pieces;
    const seconds = (this.#lastAt - this.#firstAt) / 1000;
    return {
      firstTokenMs: Math.round(this.#firstAt - this.startedAt),
      tokens,
      tokensPerSecond: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
    };
  }

  #count(now: number): void {
    this.#pieces += 1;
    this.#firstAt ??= now;
    this.#lastAt = now;
  }
}
