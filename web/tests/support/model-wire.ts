/** What the model of a home says and how: answers, streams that can be broken, refusals. */
import type { Run, RunEvent } from "@/net/home/api";
import type { HomeResponse } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";

const encoder = new TextEncoder();

/** A part of a run's text. */
export interface Piece {
  readonly kind: "content" | "thinking" | "tool_call";
  readonly text: string;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly slug: string,
  ) {
    super(slug);
  }
}

/** @param next - the events that there are by now; `null` at the end. */
export class Stream {
  constructor(readonly next: () => readonly unknown[] | null) {}
}

/** The streams that go on. */
export class Streams {
  readonly #bells = new Set<() => void>();
  readonly #hangUps = new Set<() => void>();

  /** There may be something new. */
  ring(): void {
    for (const bell of [...this.#bells]) bell();
  }

  break(): void {
    for (const hangUp of [...this.#hangUps]) hangUp();
  }

  begin(stream: Stream, signal: AbortSignal): HomeResponse {
    let ended = false;
    let end: (error?: unknown) => void = () => {};
    const content = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        const more = () => {
          if (ended) return;
          for (const event of stream.next() ?? [null]) {
            if (event === null) return end(null);
            controller.enqueue(encoder.encode(`${JSON.stringify(event)}\n`));
            if ((event as RunEvent).run) return end(null);
          }
        };
        const hangUp = () => end(broken());
        const leave = () => end(signal.reason);
        end = (error) => {
          if (ended) return;
          ended = true;
          this.#bells.delete(more);
          this.#hangUps.delete(hangUp);
          signal.removeEventListener("abort", leave);
          if (error === null) controller.close();
          else controller.error(error);
        };
        this.#bells.add(more);
        this.#hangUps.add(hangUp);
        signal.addEventListener("abort", leave);
        more();
      },
      cancel: () => end(null),
    });
    return { status: 200, headers: new Headers(), content, whole: Promise.resolve(true) };
  }
}

export function isActive({ state }: Run): boolean {
  return state === "queued" || state === "loading" || state === "streaming";
}

export function sizeOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { text }) => sum + encoder.encode(text).length, 0);
}

/** The pieces that are wholly within the first `size` bytes. */
export function cut(pieces: readonly Piece[], size: number): Piece[] {
  const kept: Piece[] = [];
  let room = size;
  for (const piece of pieces) {
    const length = encoder.encode(piece.text).length;
    if (length > room) break;
    kept.push(piece);
    room -= length;
  }
  return kept;
}

export function broken(): ProblemError {
  return new ProblemError({ slug: null, title: "The connection broke", detail: "", status: 0 });
}

export function json(status: number, value: unknown): HomeResponse {
  const text = value === undefined ? "" : JSON.stringify(value);
  const content = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => {
      if (text !== "") controller.enqueue(encoder.encode(text));
      controller.close();
    },
  });
  return { status, headers: new Headers(), content, whole: Promise.resolve(true) };
}
