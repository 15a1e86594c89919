/** The AEAD of one response: nonces count up from one that both sides derive (draft §6.2, RFC 9458 §4.4). */
import { type Bytes, concat, utf8 } from "@/protocol/sealed/bytes";
import { malformed, misuse, SealedError } from "@/protocol/sealed/errors";
import { MAX_CHUNK, MAX_SEALED } from "@/protocol/sealed/limits";

export const RESPONSE_NONCE_BYTES = 16;

export class ResponseKey {
  /** It cannot be exported. */
  readonly key: CryptoKey;
  readonly #nonce: Bytes;
  #count = 0;

  private constructor(key: CryptoKey, nonce: Bytes) {
    this.key = key;
    this.#nonce = nonce;
  }

  /** Derives a response's key. */
  static async derive(enc: Bytes, secret: Bytes, nonce: Bytes): Promise<ResponseKey> {
    const base = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey", "deriveBits"]);
    const hkdf = (info: string) => ({
      name: "HKDF",
      hash: "SHA-256",
      salt: concat(enc, nonce),
      info: utf8(info),
    });
    const aes = { name: "AES-GCM", length: 128 };
    const key = await crypto.subtle.deriveKey(hkdf("key"), base, aes, false, ["encrypt", "decrypt"]);
    return new ResponseKey(key, new Uint8Array(await crypto.subtle.deriveBits(hkdf("nonce"), base, 96)));
  }

  async open(sealed: Bytes, aad: Bytes): Promise<Bytes> {
    const algorithm = this.next(aad);
    try {
      return new Uint8Array(await crypto.subtle.decrypt(algorithm, this.key, sealed));
    } catch {
      throw new SealedError("forged", "expected a chunk sealed for its place in this response");
    }
  }

  /** Returns the parameters of the next chunk. */
  next(additionalData: Bytes): AesGcmParams {
    const iv = this.#nonce.slice();
    const view = new DataView(iv.buffer);
    view.setUint32(8, view.getUint32(8) ^ this.#count);
    this.#count += 1;
    return { name: "AES-GCM", iv, additionalData };
  }
}

/** Counts the bytes under one key; a chunk of none counts as one, so that chunks are counted too. */
export class Budget {
  #left = MAX_SEALED;

  spend(size: number): void {
    if (size > MAX_CHUNK) throw misuse(`a chunk of at most ${MAX_CHUNK} bytes`);
    if (size > this.#left || this.#left === 0) throw malformed(`at most ${MAX_SEALED} bytes in one message`);
    this.#left -= size || 1;
  }
}
