/** Whole exchanges: Binary HTTP in chunked OHTTP, with padding. */
import { type BinaryHttpEvent, encodeMessage, type Message } from "@/protocol/sealed/bhttp";
import { BinaryHttpDecoder } from "@/protocol/sealed/bhttp-decoder";
import { type Bytes, concat } from "@/protocol/sealed/bytes";
import type { Fields } from "@/protocol/sealed/fields";
import type { RequestSealer, ResponseOpener } from "@/protocol/sealed/ohttp";
import { CODING, PaddingRemover, requestSize } from "@/protocol/sealed/padding";

const ENCODING = "content-encoding";

/** Returns a whole request, padded. */
export async function sealRequest(sealer: RequestSealer, value: Message): Promise<Bytes> {
  const plain = encodeMessage(value);
  return await sealer.sealAll(concat(plain, new Uint8Array(requestSize(plain.length) - plain.length)));
}

/** Opens and reads a response from any pieces of its bytes. Calls must not overlap. */
export class ResponseReader {
  readonly #opener: ResponseOpener;
  readonly #decoder = new BinaryHttpDecoder("response");
  #padding: PaddingRemover | undefined;

  constructor(opener: ResponseOpener) {
    this.#opener = opener;
  }

  /**
   * Takes bytes, and returns what they complete, without the padding.
   *
   * @throws SealedError - what came is not, or not unchanged, what the bridge sealed; nothing more can be read.
   */
  async receive(bytes: Uint8Array): Promise<BinaryHttpEvent[]> {
    const chunks = await this.#opener.receive(bytes);
    return chunks.flatMap((chunk) => this.#plain(this.#decoder.receive(chunk)));
  }

  /**
   * Takes the end of the bytes; the last event is "end": only then is the answer whole.
   *
   * @throws SealedError - "truncated": it is not whole.
   */
  async end(): Promise<BinaryHttpEvent[]> {
    const last = await this.#opener.end();
    const events = [...this.#plain(this.#decoder.receive(last)), ...this.#plain(this.#decoder.end())];
    this.#padding?.end();
    return events;
  }

  #plain(events: readonly BinaryHttpEvent[]): BinaryHttpEvent[] {
    return events.flatMap((event): BinaryHttpEvent[] => {
      if (event.type === "response") {
        const fields = uncoded(event.fields);
        if (!fields) return [event];
        this.#padding = new PaddingRemover();
        return [{ ...event, fields }];
      }
      if (event.type !== "content" || !this.#padding) return [event];
      const data = this.#padding.receive(event.data);
      return data.length > 0 ? [{ type: "content", data }] : [];
    });
  }
}

/** Returns the fields of a head whose content is taken out of the coding; undefined if it is not in it. */
function uncoded(fields: Fields): Fields | undefined {
  const codings = fields.filter(([name]) => name === ENCODING).map(([, value]) => value);
  const names = codings
    .join(",")
    .split(",")
    .map((coding) => coding.trim());
  if (names.pop() !== CODING) return undefined;
  const rest = fields.filter(([name]) => name !== ENCODING);
  return names.length > 0 ? [...rest, [ENCODING, names.join(", ")]] : rest;
}
