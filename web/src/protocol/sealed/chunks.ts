/** The framing of sealed chunks (draft-ietf-ohai-chunked-ohttp-08 §4, §5). */
import { ByteQueue, type Bytes } from "@/protocol/sealed/bytes";
import { malformed, SealedError } from "@/protocol/sealed/errors";
import { MAX_CHUNK, TAG } from "@/protocol/sealed/limits";

/** The length that announces the final chunk. */
export const FINAL: Bytes = Uint8Array.of(0);
export const FINAL_AAD: Bytes = new TextEncoder().encode("final");
const MOST = MAX_CHUNK + TAG;

/** Splits bytes that come in any pieces into sealed chunks. */
export class ChunkSplitter {
  readonly #queue = new ByteQueue();
  #final = false;

  /** Takes bytes, and returns the chunks that they complete, all of them but the final one. */
  receive(bytes: Uint8Array): Bytes[] {
    this.#queue.push(bytes);
    const found: Bytes[] = [];
    while (!this.#final) {
      const length = this.#queue.varint(0);
      if (!length) break;
      const [size, start] = length;
      if (size === 0) {
        this.#final = true;
        this.#queue.skip(start);
        break;
      }
      if (size < TAG || size > MOST) throw malformed(`a sealed chunk of ${TAG} to ${MOST} bytes`);
      if (start + size > this.#queue.length) break;
      this.#queue.skip(start);
      found.push(this.#queue.take(size));
    }
    if (this.#final && this.#queue.length > MOST)
      throw malformed(`a sealed final chunk of at most ${MOST} bytes`);
    return found;
  }

  /** Takes the end of the bytes, and returns the final chunk. */
  end(): Bytes {
    if (!this.#final || this.#queue.length < TAG) {
      throw new SealedError("truncated", "expected a final chunk, got the end");
    }
    return this.#queue.take(this.#queue.length);
  }
}

/** Returns bytes in chunks of at most MAX_CHUNK; one empty chunk for none. */
export function split(plaintext: Uint8Array): [...Uint8Array[], Uint8Array] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (; at + MAX_CHUNK < plaintext.length; at += MAX_CHUNK)
    pieces.push(plaintext.subarray(at, at + MAX_CHUNK));
  return [...pieces, plaintext.subarray(at)];
}
