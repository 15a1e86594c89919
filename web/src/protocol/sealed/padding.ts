/** Padding: what the relay sees of sizes. How a response is padded is the bridge's matter; here it is taken out. */
import { ByteQueue, type Bytes, concat, isZero } from "@/protocol/sealed/bytes";
import { malformed, SealedError } from "@/protocol/sealed/errors";

/** The content coding in which a response is padded. */
export const CODING = "c2l-pad";
const RECORD_HEADER = 4;
const REQUEST_FLOOR = 1024;
const MULTIPLE = 128;

/** Returns the smallest size of Padmé's (Nikitin et al. 2019) that is not below one. */
export function padme(size: number): number {
  if (size < 2) return size;
  const exponent = 31 - Math.clz32(size);
  const step = 2 ** (exponent - (32 - Math.clz32(exponent)));
  return Math.ceil(size / step) * step;
}

/** Returns the bytes to which a request of so many bytes is padded. */
export function requestSize(size: number): number {
  return Math.ceil(padme(Math.max(size, REQUEST_FLOOR)) / MULTIPLE) * MULTIPLE;
}

/** Reads the coding from any pieces of its bytes. */
export class PaddingRemover {
  readonly #queue = new ByteQueue();
  #data = 0;
  #padding = 0;

  /** Takes bytes, and returns the data in them. */
  receive(bytes: Uint8Array): Bytes {
    this.#queue.push(bytes);
    const out: Bytes[] = [];
    while (this.#queue.length > 0) {
      if (this.#data > 0) {
        const piece = this.#queue.take(this.#data);
        this.#data -= piece.length;
        out.push(piece);
      } else if (this.#padding > 0) {
        const piece = this.#queue.take(this.#padding);
        this.#padding -= piece.length;
        if (!isZero(piece)) throw malformed("zero bytes as padding");
      } else if (this.#queue.length < RECORD_HEADER) {
        break;
      } else {
        const view = new DataView(this.#queue.take(RECORD_HEADER).buffer);
        this.#data = view.getUint16(0);
        this.#padding = view.getUint16(2);
      }
    }
    return concat(...out);
  }

  /** Takes the end of the bytes. */
  end(): void {
    if (this.#queue.length > 0 || this.#data > 0 || this.#padding > 0) {
      throw new SealedError("truncated", "expected whole records of padded content");
    }
  }
}
