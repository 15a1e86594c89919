/**
 * Chunked Oblivious HTTP (draft-ietf-ohai-chunked-ohttp-08): the client's side. The format is described in the Python
 * twin; the bridge's side, for tests and other clients' tests, is in `gateway`.
 */
import { type Bytes, concat, utf8, varint } from "@/protocol/sealed/bytes";
import { ChunkSplitter, FINAL, FINAL_AAD, split } from "@/protocol/sealed/chunks";
import { misuse, SealedError } from "@/protocol/sealed/errors";
import { type SenderContext, type Suite, sender } from "@/protocol/sealed/hpke";
import { configHeader, type KeyConfig } from "@/protocol/sealed/key-config";
import { PAIRING_ID_BYTES } from "@/protocol/sealed/limits";
import { Budget, RESPONSE_NONCE_BYTES, ResponseKey } from "@/protocol/sealed/response-key";

export const REQUEST_TYPE = "message/ohttp-chunked-req";
export const RESPONSE_TYPE = "message/ohttp-chunked-res";

/** What keeps keys for one purpose from being good for another. */
export interface Labels {
  readonly request: Bytes;
  readonly response: Bytes;
}

export const EXCHANGE: Labels = {
  request: utf8("message/bhttp chunked request"),
  response: utf8("message/bhttp chunked response"),
};
export const PAIRING: Labels = {
  request: utf8("c2l pairing request v1"),
  response: utf8("c2l pairing response v1"),
};
const NONE = new Uint8Array();

/** The one-time secret of a pairing, and its name in the open. */
export interface SharedSecret {
  readonly id: Bytes;
  readonly secret: Bytes;
}

/** The client's side of one request. Calls must not overlap. */
export class RequestSealer {
  /** What the request begins with; the chunks follow. */
  readonly header: Bytes;
  /** The encapsulated secret. */
  readonly enc: Bytes;
  readonly #context: SenderContext;
  readonly #labels: Labels;
  readonly #budget = new Budget();
  #open = true;

  private constructor(named: Bytes, enc: Bytes, context: SenderContext, labels: Labels) {
    this.header = concat(named, enc);
    this.enc = enc;
    this.#context = context;
    this.#labels = labels;
  }

  /**
   * Sets a request up.
   *
   * @param config - Whom to seal to; from a signed statement that was verified.
   * @param options - `shared`: the secret of a pairing. `suite`: for tests only.
   */
  static async create(
    config: KeyConfig,
    { shared, suite }: { shared?: SharedSecret | undefined; suite?: Suite } = {},
  ): Promise<RequestSealer> {
    if (shared && shared.id.length !== PAIRING_ID_BYTES)
      throw misuse(`a pairing id of ${PAIRING_ID_BYTES} bytes`);
    const labels = shared ? PAIRING : EXCHANGE;
    const named = concat(configHeader(config), shared?.id ?? NONE);
    const psk = shared && { psk: shared.secret, pskId: shared.id };
    const info = concat(labels.request, Uint8Array.of(0), named);
    const { enc, context } = await sender(config.publicKey, info, psk, suite);
    return new RequestSealer(named, enc, context, labels);
  }

  /** Returns a chunk that is not the final one, with its length. */
  async seal(chunk: Uint8Array): Promise<Bytes> {
    this.#spend(chunk);
    const sealed = await this.#context.Seal(chunk);
    return concat(varint(sealed.length), sealed);
  }

  async sealFinal(chunk: Uint8Array = NONE): Promise<Bytes> {
    this.#spend(chunk);
    this.#open = false;
    return concat(FINAL, await this.#context.Seal(chunk, FINAL_AAD));
  }

  /** Returns a whole request. */
  async sealAll(plaintext: Uint8Array): Promise<Bytes> {
    const pieces = split(plaintext);
    const last = pieces.pop();
    const sealed = [];
    for (const piece of pieces) sealed.push(await this.seal(piece));
    return concat(this.header, ...sealed, await this.sealFinal(last));
  }

  /** Returns a secret that only the two ends of this request know. */
  async export(label: string | Bytes, size: number): Promise<Bytes> {
    return (await this.#context.Export(typeof label === "string" ? utf8(label) : label, size)) as Bytes;
  }

  /** Returns what opens the response. */
  async response(): Promise<ResponseOpener> {
    return new ResponseOpener(this.enc, await this.export(this.#labels.response, RESPONSE_NONCE_BYTES));
  }

  #spend(chunk: Uint8Array): void {
    if (!this.#open) throw misuse("no chunk after the final one");
    this.#budget.spend(chunk.length);
  }
}

/** The client's side of one response. Calls must not overlap; after an error it is closed. */
export class ResponseOpener {
  readonly #enc: Bytes;
  readonly #secret: Bytes;
  readonly #splitter = new ChunkSplitter();
  readonly #budget = new Budget();
  #nonce: Bytes = NONE;
  #key: ResponseKey | undefined;
  #open = true;

  constructor(enc: Bytes, secret: Bytes) {
    this.#enc = enc;
    this.#secret = secret;
  }

  /** Takes bytes, and returns the chunks' plaintext that they complete; the final one comes from end. */
  async receive(bytes: Uint8Array): Promise<Bytes[]> {
    this.#close();
    let rest = bytes;
    if (!this.#key) {
      const missing = RESPONSE_NONCE_BYTES - this.#nonce.length;
      this.#nonce = concat(this.#nonce, rest.subarray(0, missing));
      rest = rest.subarray(missing);
      if (this.#nonce.length === RESPONSE_NONCE_BYTES) {
        this.#key = await ResponseKey.derive(this.#enc, this.#secret, this.#nonce);
      }
    }
    const chunks = [];
    for (const chunk of this.#splitter.receive(rest)) chunks.push(await this.#unseal(chunk, NONE));
    this.#open = true;
    return chunks;
  }

  /** Takes the end of the bytes, and returns the final chunk's plaintext: the response is whole. */
  async end(): Promise<Bytes> {
    this.#close();
    return await this.#unseal(this.#splitter.end(), FINAL_AAD);
  }

  async #unseal(chunk: Bytes, aad: Bytes): Promise<Bytes> {
    if (!this.#key) throw new SealedError("truncated", "expected a nonce, got the end");
    const plain = await this.#key.open(chunk, aad);
    this.#budget.spend(plain.length);
    return plain;
  }

  /** Closes it until what was begun has worked. */
  #close(): void {
    if (!this.#open) throw misuse("no more calls after the end or an error, and none at once");
    this.#open = false;
  }
}
