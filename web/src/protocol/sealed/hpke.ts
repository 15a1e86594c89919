/**
 * HPKE (RFC 9180) with the one suite in use, by panva's `hpke` over WebCrypto: DHKEM(X25519, HKDF-SHA256),
 * HKDF-SHA256, AES-128-GCM. One suite and no choice means that no peer can talk us down to another.
 */
import {
  AEAD_AES_128_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type KeyPair,
} from "hpke";
import type { Bytes } from "@/protocol/sealed/bytes";
import { malformed, misuse } from "@/protocol/sealed/errors";

/** KEM, KDF and AEAD as they stand in a header. */
export const SUITE_IDS: Bytes = Uint8Array.of(0x00, 0x20, 0x00, 0x01, 0x00, 0x01);
export const KEY_BYTES = 32;
const MIN_PSK = 32;

export interface Psk {
  readonly psk: Bytes;
  readonly pskId: Bytes;
}

/** The suite; tests put in one of which the ephemeral keys are known, so that messages can be made again. */
export type Suite = CipherSuite<CryptoKey>;

export interface SenderContext {
  Seal(plaintext: Uint8Array, aad?: Uint8Array): Promise<Uint8Array>;
  Export(context: Uint8Array, length: number): Promise<Uint8Array>;
}

export interface RecipientContext {
  Open(ciphertext: Uint8Array, aad?: Uint8Array): Promise<Uint8Array>;
  Export(context: Uint8Array, length: number): Promise<Uint8Array>;
}

const SUITE = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);

/** Sets up a context to seal to a public key; returns it with the encapsulated secret. */
export async function sender(
  publicKey: Bytes,
  info: Bytes,
  psk?: Psk,
  suite: Suite = SUITE,
): Promise<{ enc: Bytes; context: SenderContext }> {
  checkPsk(psk);
  try {
    const key = await suite.DeserializePublicKey(publicKey);
    const { encapsulatedSecret, ctx } = await suite.SetupSender(key, { info, ...psk });
    return { enc: encapsulatedSecret as Bytes, context: ctx };
  } catch {
    throw malformed("a public key of X25519, and a browser that has it");
  }
}

/** Sets up the context with which a sender's chunks are opened. */
export async function recipient(
  enc: Bytes,
  pair: KeyPair<CryptoKey>,
  info: Bytes,
  psk?: Psk,
): Promise<RecipientContext> {
  checkPsk(psk);
  try {
    return await SUITE.SetupRecipient(pair, enc, { info, ...psk });
  } catch {
    throw malformed("an encapsulated secret of X25519");
  }
}

function checkPsk(psk: Psk | undefined): void {
  if (psk && (psk.psk.length < MIN_PSK || psk.pskId.length === 0)) {
    throw misuse(`a shared secret of at least ${MIN_PSK} bytes with a name`);
  }
}
