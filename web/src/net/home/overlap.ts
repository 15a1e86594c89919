/**
 * What two attachments to the same run both brought. A bridge that was killed has lost the last moment of text that it
 * had shown already; its engine says it again, and need not say the same. So whoever attaches again asks for the end of
 * what is there once more, and compares. Pure.
 */
import type { RunText } from "@/net/home/api";

export type Kind = RunText["kind"];

/** Text of one kind, next to text of other kinds. */
export interface Segment {
  readonly kind: Kind;
  readonly text: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export function bytesOf(text: string): number {
  return encoder.encode(text).length;
}

/** Returns the last segments of a text, `most` bytes of it or less by a part of a character. */
export function endOf(segments: readonly Segment[], most: number): readonly Segment[] {
  const found: Segment[] = [];
  let room = most;
  for (let index = segments.length - 1; index >= 0 && room > 0; index -= 1) {
    const segment = segments[index] as Segment;
    const bytes = encoder.encode(segment.text);
    let from = Math.max(0, bytes.length - room);
    while (from < bytes.length && ((bytes[from] as number) & 0xc0) === 0x80) from += 1;
    if (from < bytes.length)
      found.unshift({ kind: segment.kind, text: decoder.decode(bytes.subarray(from)) });
    room = from === 0 ? room - bytes.length : 0;
  }
  return found;
}

/** Compares what comes with what is there. */
export class Overlap {
  #expected: Segment[];

  constructor(expected: readonly Segment[]) {
    this.#expected = [...expected];
  }

  /** Bytes that have yet to come again. */
  get left(): number {
    return this.#expected.reduce((sum, { text }) => sum + bytesOf(text), 0);
  }

  /** Returns what of a piece is new; `null` if it is not the same text. */
  take(kind: Kind, text: string): string | null {
    let rest = text;
    while (rest !== "") {
      const next = this.#expected[0];
      if (next === undefined) return rest;
      const length = Math.min(rest.length, next.text.length);
      if (next.kind !== kind || next.text.slice(0, length) !== rest.slice(0, length)) return null;
      if (length === next.text.length) this.#expected.shift();
      else this.#expected[0] = { kind, text: next.text.slice(length) };
      rest = rest.slice(length);
    }
    return "";
  }
}
