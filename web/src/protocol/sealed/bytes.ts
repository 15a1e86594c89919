/** Bytes: joining, comparing, text, and a queue for what comes in pieces. */
import { malformed, misuse } from "@/protocol/sealed/errors";

/** What WebCrypto takes: not a view of shared memory. */
export type Bytes = Uint8Array<ArrayBuffer>;

const UTF8 = new TextEncoder();

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export function utf8(text: string): Bytes {
  return UTF8.encode(text);
}

/** Returns the bytes of a text of which each character is one byte, as in HTTP fields. */
export function latin1(text: string): Bytes {
  return Uint8Array.from(text, (char) => {
    const code = char.charCodeAt(0);
    if (code > 255 || char.length > 1) throw misuse("characters of one byte");
    return code;
  });
}

export function fromLatin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

export function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  let difference = one.length ^ other.length;
  for (const [index, byte] of one.entries()) difference |= byte ^ (other[index] ?? 0);
  return difference === 0;
}

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Returns bytes in base64url without padding (RFC 4648 §5). */
export function toBase64Url(bytes: Uint8Array): string {
  return btoa(fromLatin1(bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Reads base64url in its one canonical spelling, of a certain size in bytes if one is given. */
export function fromBase64Url(text: unknown, what: string, size?: number): Bytes {
  if (typeof text !== "string" || !/^[\w-]*$/.test(text) || text.length % 4 === 1) {
    throw malformed(`${what} in base64url`);
  }
  const bytes = latin1(atob(text.replaceAll("-", "+").replaceAll("_", "/")));
  if (toBase64Url(bytes) !== text) throw malformed(`${what} in the canonical spelling of base64url`);
  if (size !== undefined && bytes.length !== size) throw malformed(`${what} of ${size} bytes`);
  return bytes;
}

/** Returns the shortest encoding of a length (RFC 9000 §16). */
export function varint(value: number): Bytes {
  if (value < 2 ** 6) return Uint8Array.of(value);
  if (value < 2 ** 14) return Uint8Array.of(0x40 | (value >> 8), value);
  if (value < 2 ** 30) return Uint8Array.of(0x80 | (value >> 24), value >> 16, value >> 8, value);
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value) | (3n << 62n));
  return bytes;
}

/** Bytes that come in pieces. What is taken from the front costs nothing but its own copy. */
export class ByteQueue {
  #data = new Uint8Array(256);
  #start = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#start;
  }

  push(bytes: Uint8Array): void {
    const needed = this.length + bytes.length;
    if (this.#end + bytes.length > this.#data.length) {
      // At least doubled, or at least half of it free: so each byte is moved a fixed number of times.
      const room = needed * 2 > this.#data.length ? new Uint8Array(needed * 2) : this.#data;
      room.set(this.#data.subarray(this.#start, this.#end));
      this.#data = room;
      this.#end = this.length;
      this.#start = 0;
    }
    this.#data.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Returns a copy of some bytes; offsets are from the front. */
  slice(from: number, to: number): Bytes {
    return this.#data.slice(this.#start + from, Math.min(this.#start + to, this.#end));
  }

  /** Takes bytes from the front, as many as there are of them at most. */
  take(size: number): Bytes {
    const taken = this.slice(0, size);
    this.#start += taken.length;
    return taken;
  }

  skip(size: number): void {
    this.#start += size;
  }

  /** Reads a length at an offset; returns it and the offset after it, or undefined when it is not all there. */
  varint(at: number): readonly [value: number, end: number] | undefined {
    const first = this.#data[this.#start + at];
    if (at >= this.length || first === undefined) return undefined;
    const size = 1 << (first >> 6);
    if (at + size > this.length) return undefined;
    let value = first & 63;
    // Beyond 2^53 this is not exact; there every limit is exceeded anyway.
    for (let index = 1; index < size; index += 1)
      value = value * 256 + (this.#data[this.#start + at + index] ?? 0);
    return [value, at + size];
  }
}
