/** Which device made a request: the proof by its key (CDK). What it says and why is described in the Python twin. */
import { type Bytes, concat, toBase64Url, utf8 } from "@/protocol/sealed/bytes";
import type { Fields } from "@/protocol/sealed/fields";
import type { RequestSealer } from "@/protocol/sealed/ohttp";

const P256 = { name: "ECDSA", namedCurve: "P-256" };
const ECDSA = { name: "ECDSA", hash: "SHA-256" };
const LABEL = utf8("c2l device proof v1\0");
const EXPORT = utf8("c2l device proof");
const EXPORT_BYTES = 32;

/** A device's key; what is kept in IndexedDB. The private key never leaves the browser's own keeping. */
export interface Device {
  readonly id: string;
  readonly privateKey: CryptoKey;
  /** The public key, an uncompressed point. */
  readonly point: Bytes;
}

/** Makes a device's key; its private part cannot be exported, not even by this page. */
export async function createDevice(): Promise<Device> {
  const pair = await crypto.subtle.generateKey(P256, false, ["sign", "verify"]);
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { id: await deviceId(point), privateKey: pair.privateKey, point };
}

/** Returns the SHA-256 of a public key, by which bridges are pinned and devices named. */
export async function fingerprint(publicKey: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", publicKey));
}

export async function deviceId(point: Bytes): Promise<string> {
  return toBase64Url(await fingerprint(point));
}

export async function sign(privateKey: CryptoKey, message: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.sign(ECDSA, privateKey, message));
}

/** Tells whether a signature in 64 bytes holds; false for a public key that is none. */
export async function verify(point: Bytes, signature: Bytes, message: Bytes): Promise<boolean> {
  try {
    const key = await crypto.subtle.importKey("raw", point, P256, false, ["verify"]);
    return await crypto.subtle.verify(ECDSA, key, signature, message);
  } catch {
    return false;
  }
}

/** Returns what a device signs for a request. */
export async function proofMessage(request: {
  export(label: Bytes, size: number): Promise<Bytes>;
}): Promise<Bytes> {
  return concat(LABEL, await request.export(EXPORT, EXPORT_BYTES));
}

/** Returns the fields that a device puts into a request; they are good for this one only. */
export async function proofFields(
  request: Pick<RequestSealer, "export">,
  device: Pick<Device, "id" | "privateKey">,
  now: Date,
): Promise<Fields> {
  const proof = await sign(device.privateKey, await proofMessage(request));
  return [
    ["date", now.toUTCString()], // which is an IMF-fixdate (ECMA-262 §21.4.4.43)
    ["c2l-device", device.id],
    ["c2l-proof", toBase64Url(proof)],
  ];
}
