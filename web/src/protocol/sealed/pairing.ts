/** How a device and a bridge come to know each other's keys; described in the Python twin. */
import { type Bytes, concat, fromBase64Url, toBase64Url, utf8 } from "@/protocol/sealed/bytes";
import { type Device, fingerprint } from "@/protocol/sealed/device";
import { malformed } from "@/protocol/sealed/errors";
import { PAIRING_ID_BYTES } from "@/protocol/sealed/limits";
import type { SharedSecret } from "@/protocol/sealed/ohttp";

export const PAIRING_PATH = "/c2l/devices";
export const PAIRING_REQUEST_TYPE = "application/c2l-pairing-req";
export const PAIRING_RESPONSE_TYPE = "application/c2l-pairing-res";
const VERSION = "c2l1";
const ID_LABEL = utf8("c2l pairing id v1\0");

/** What a link's fragment says. */
export interface PairingLink {
  readonly bridgeId: string;
  /** Of the bridge's identity; this is what is pinned. */
  readonly fingerprint: Bytes;
  readonly secret: Bytes;
}

/** Reads a link's fragment, with or without its #. */
export function readLink(fragment: string): PairingLink {
  const [version, bridgeId, pinned, secret, ...more] = fragment.replace(/^#/, "").split(".");
  if (version !== VERSION || !bridgeId || !/^[\w-]{1,64}$/.test(bridgeId) || more.length > 0) {
    throw malformed("a whole pairing link; copy it again");
  }
  return {
    bridgeId,
    fingerprint: fromBase64Url(pinned, "a fingerprint", 32),
    secret: fromBase64Url(secret, "a secret", 32),
  };
}

export function writeLink(link: PairingLink): string {
  return [VERSION, link.bridgeId, toBase64Url(link.fingerprint), toBase64Url(link.secret)].join(".");
}

/** Returns a link's secret with the name by which the bridge finds it. */
export async function sharedSecret(secret: Bytes): Promise<SharedSecret> {
  return { id: (await fingerprint(concat(ID_LABEL, secret))).slice(0, PAIRING_ID_BYTES), secret };
}

/** Returns the content of a pairing request. */
export function introduction(device: Pick<Device, "point">, name: string): Bytes {
  return utf8(JSON.stringify({ key: toBase64Url(device.point), name }));
}
