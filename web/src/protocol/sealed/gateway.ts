/** Chunked Oblivious HTTP: the bridge's side, for tests of the client's. Not in the app's bundle. */
import type { KeyPair } from "hpke";
import { type Bytes, concat, sameBytes, varint } from "@/protocol/sealed/bytes";
import { ChunkSplitter, FINAL, FINAL_AAD, split } from "@/protocol/sealed/chunks";
import { malformed, misuse, SealedError } from "@/protocol/sealed/errors";
import { KEY_BYTES, type RecipientContext, recipient, SUITE_IDS } from "@/protocol/sealed/hpke";
import { PAIRING_ID_BYTES } from "@/protocol/sealed/limits";
import { EXCHANGE, type Labels, PAIRING } from "@/protocol/sealed/ohttp";
import { Budget, RESPONSE_NONCE_BYTES, ResponseKey } from "@/protocol/sealed/response-key";

const HEADER = 7;
const NONE = new Uint8Array();

/** The bridge's side of one request. */
export class RequestOpener {
  readonly #pair: (keyId: number) => KeyPair<CryptoKey> | undefined;
  readonly #secret: ((id: Bytes) => Bytes | undefined) | undefined;
  readonly #labels: Labels;
  readonly #named: number;
  readonly #splitter = new ChunkSplitter();
  readonly #budget = new Budget();
  #head: Bytes = NONE;
  #context: RecipientContext | undefined;
  #open = true;

  /** Expects an exchange, or a pairing if `secret` is given. */
  constructor(
    pair: (keyId: number) => KeyPair<CryptoKey> | undefined,
    secret?: (id: Bytes) => Bytes | undefined,
  ) {
    this.#pair = pair;
    this.#secret = secret;
    this.#labels = secret ? PAIRING : EXCHANGE;
    this.#named = HEADER + (secret ? PAIRING_ID_BYTES : 0);
  }

  /** The encapsulated secret, once it came. */
  get enc(): Bytes {
    return this.#head.slice(this.#named);
  }

  async receive(bytes: Uint8Array): Promise<Bytes[]> {
    this.#close();
    let rest = bytes;
    if (!this.#context) {
      const missing = this.#named + KEY_BYTES - this.#head.length;
      this.#head = concat(this.#head, rest.subarray(0, missing));
      rest = rest.subarray(missing);
      if (this.#head.length === this.#named + KEY_BYTES) this.#context = await this.#setUp();
    }
    const chunks = [];
    for (const chunk of this.#splitter.receive(rest)) chunks.push(await this.#unseal(chunk, NONE));
    this.#open = true;
    return chunks;
  }

  async end(): Promise<Bytes> {
    this.#close();
    return await this.#unseal(this.#splitter.end(), FINAL_AAD);
  }

  async export(label: Bytes, size: number): Promise<Bytes> {
    if (!this.#context) throw misuse("the request's header first");
    return (await this.#context.Export(label, size)) as Bytes;
  }

  async response(nonce: Bytes): Promise<ResponseSealer> {
    const secret = await this.export(this.#labels.response, RESPONSE_NONCE_BYTES);
    return new ResponseSealer(await ResponseKey.derive(this.enc, secret, nonce), nonce);
  }

  async #setUp(): Promise<RecipientContext> {
    const named = this.#head.slice(0, this.#named);
    if (!sameBytes(named.subarray(1, HEADER), SUITE_IDS))
      throw malformed("X25519, HKDF-SHA256 and AES-128-GCM");
    const pair = this.#pair(named[0] ?? 0);
    const pskId = named.slice(HEADER);
    const psk = this.#secret?.(pskId);
    if (!pair || (this.#secret && !psk)) {
      throw new SealedError("unknown-key", "expected a request for a key or a pairing that is held");
    }
    const info = concat(this.#labels.request, Uint8Array.of(0), named);
    return await recipient(this.enc, pair, info, psk && { psk, pskId });
  }

  async #unseal(chunk: Bytes, aad: Bytes): Promise<Bytes> {
    if (!this.#context) throw new SealedError("truncated", "expected a sealed request, got the end");
    try {
      const plain = (await this.#context.Open(chunk, aad)) as Bytes;
      this.#budget.spend(plain.length);
      return plain;
    } catch (error) {
      if (error instanceof SealedError) throw error;
      throw new SealedError("forged", "expected a chunk sealed for its place in this request");
    }
  }

  #close(): void {
    if (!this.#open) throw misuse("no more calls after the end or an error, and none at once");
    this.#open = false;
  }
}

/** The bridge's side of one response. */
export class ResponseSealer {
  readonly header: Bytes;
  readonly #key: ResponseKey;
  readonly #budget = new Budget();

  constructor(key: ResponseKey, nonce: Bytes) {
    this.#key = key;
    this.header = nonce;
  }

  async seal(chunk: Uint8Array): Promise<Bytes> {
    this.#budget.spend(chunk.length);
    const sealed = await this.#seal(chunk, NONE);
    return concat(varint(sealed.length), sealed);
  }

  async sealFinal(chunk: Uint8Array = NONE): Promise<Bytes> {
    this.#budget.spend(chunk.length);
    return concat(FINAL, await this.#seal(chunk, FINAL_AAD));
  }

  async sealAll(plaintext: Uint8Array): Promise<Bytes> {
    const pieces = split(plaintext);
    const last = pieces.pop();
    const sealed = [];
    for (const piece of pieces) sealed.push(await this.seal(piece));
    return concat(this.header, ...sealed, await this.sealFinal(last));
  }

  async #seal(chunk: Uint8Array, aad: Bytes): Promise<Bytes> {
    const { key } = this.#key;
    return new Uint8Array(await crypto.subtle.encrypt(this.#key.next(aad), key, chunk as Bytes));
  }
}
