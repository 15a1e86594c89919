/** Vectors and fixed keys for the tests of the sealed envelope. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  AEAD_AES_128_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type KeyPair,
} from "hpke";
import { expect } from "vitest";
import type { Bytes } from "@/protocol/sealed/bytes";
import { concat } from "@/protocol/sealed/bytes";
import { SealedError, type SealedErrorCode } from "@/protocol/sealed/errors";
import type { Suite } from "@/protocol/sealed/hpke";

export const folder = fileURLToPath(new URL("../../../../tests/vectors/", import.meta.url));

// biome-ignore lint/suspicious/noExplicitAny: vector files are as they are
export type Vector = any;

export function vectors(name: string): Vector {
  return JSON.parse(readFileSync(folder + name, "utf8"));
}

export function hex(text: string): Bytes {
  return Uint8Array.from(Buffer.from(text, "hex"));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

const plainSuite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);

/** Returns the pair of a raw private key of X25519. */
export async function pairOf(privateKey: Bytes): Promise<KeyPair<CryptoKey>> {
  const key = await plainSuite.DeserializePrivateKey(privateKey, true);
  const jwk = await crypto.subtle.exportKey("jwk", key);
  const publicKey = await plainSuite.DeserializePublicKey(
    Uint8Array.from(Buffer.from(jwk.x ?? "", "base64url")),
  );
  return { privateKey: key, publicKey };
}

/** Returns the suite with a known ephemeral key. */
export async function suiteWith(ephemeral: Bytes): Promise<Suite> {
  const pair = await pairOf(ephemeral);
  const kem = () => ({ ...KEM_DHKEM_X25519_HKDF_SHA256(), GenerateKeyPair: async () => pair });
  return new CipherSuite(kem, KDF_HKDF_SHA256, AEAD_AES_128_GCM);
}

export async function publicBytes(pair: KeyPair<CryptoKey>): Promise<Bytes> {
  return Uint8Array.from(await plainSuite.SerializePublicKey(pair.publicKey));
}

interface AsyncReader<T> {
  receive(bytes: Uint8Array): T[] | Promise<T[]>;
  end(): T | T[] | Promise<T | T[]>;
}

/** Returns all that a reader gives for pieces of bytes and their end. */
export async function readAll<T>(reader: AsyncReader<T>, pieces: readonly Uint8Array[]): Promise<T[]> {
  const found: T[] = [];
  for (const piece of pieces) found.push(...(await reader.receive(piece)));
  const last = await reader.end();
  return [...found, ...(Array.isArray(last) ? last : [last])];
}

export function bytewise(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
}

/** Expects a SealedError of one of these codes. */
export async function expectRefused(run: () => unknown, ...codes: SealedErrorCode[]): Promise<void> {
  let error: unknown;
  try {
    await run();
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(SealedError);
  if (codes.length > 0) expect(codes).toContain((error as SealedError).code);
}

/** Returns a copy with one bit changed. */
export function flipped(bytes: Uint8Array, at: number, bit: number): Bytes {
  const copy = concat(bytes);
  copy[at] = (copy[at] ?? 0) ^ (1 << bit);
  return copy;
}
