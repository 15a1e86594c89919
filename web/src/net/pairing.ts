/** The typed client of pairing: who asks to become one of the user's machines, and the answer. */
import { readRedirect } from "@/net/api";
import { call, read, segment } from "@/net/call";
import { fields, instantOrNull, oneOf, text, textOr } from "@/net/decode";

export interface PairingRequest {
  readonly name: string;
  /** The network address that the request came from. */
  readonly address: string;
  /** Milliseconds since 1970; `null` if the server does not say. */
  readonly requested: number | null;
  /** Milliseconds since 1970; `null` if the server does not say. */
  readonly expires: number | null;
  readonly version: string;
  /** `loopback`: by a program on the computer that the browser runs on. `device`: by any machine, with a code. */
  readonly kind: "device" | "loopback";
}

export function decodePairingRequest(value: unknown): PairingRequest {
  const document = fields(value);
  return {
    name: text(document["name"]),
    address: textOr(document["address"], "") || "unknown",
    requested: instantOrNull(document["requested"]),
    expires: instantOrNull(document["expires"]),
    version: textOr(document["version"], "") || "unknown",
    kind: oneOf(document["kind"], ["device", "loopback"]),
  };
}

const CODE_LETTERS = 8;

/** A short code as the server knows it, `BCDF-GHJK`, from however it was typed; `null` if it is none. */
export function normalCode(typed: string): string | null {
  const letters = typed.replace(/[\s\p{Dash}]/gu, "").toUpperCase();
  if (!new RegExp(`^[A-Z0-9]{${CODE_LETTERS}}$`).test(letters)) return null;
  return `${letters.slice(0, CODE_LETTERS / 2)}-${letters.slice(CODE_LETTERS / 2)}`;
}

const path = (id: string) => `/api/bridge/pairing/requests/${segment(id)}`;

export async function getPairingRequest(id: string): Promise<PairingRequest> {
  return read(await call("GET", path(id)), decodePairingRequest);
}

/** Returns where to go then, for a program that waits on this computer; else `null`. */
export async function answerPairingRequest(id: string, answer: "approve" | "deny"): Promise<string | null> {
  return readRedirect(await call("POST", `${path(id)}/${answer}`, {}));
}
