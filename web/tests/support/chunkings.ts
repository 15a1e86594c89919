/** Ways to cut the same bytes into chunks. */
export interface Chunking {
  readonly name: string;
  readonly chunks: readonly Uint8Array[];
}

function ofSize(bytes: Uint8Array, size: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; start += size) chunks.push(bytes.subarray(start, start + size));
  return chunks;
}

/** Whole, in equal pieces, cut in two at every place, and with empty chunks between. */
export function chunkings(bytes: Uint8Array): Chunking[] {
  const sizes = [1, 2, 3, 5, 7, 64].map((size) => ({
    name: `pieces of ${size}`,
    chunks: ofSize(bytes, size),
  }));
  const halves = Array.from(bytes, (_, at) => ({
    name: `two pieces, cut at ${at}`,
    chunks: [bytes.subarray(0, at), bytes.subarray(at)],
  }));
  const gaps = ofSize(bytes, 4).flatMap((chunk) => [new Uint8Array(), chunk]);
  return [
    { name: "one piece", chunks: [bytes] },
    ...sizes,
    ...halves,
    { name: "empty pieces between", chunks: gaps },
  ];
}

export function pushAll<T>(parser: { push(bytes: Uint8Array): T[] }, chunks: readonly Uint8Array[]): T[] {
  return chunks.flatMap((chunk) => parser.push(chunk));
}
