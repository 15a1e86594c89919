/** The typed client of the devices that may use a home. */
import { segment } from "@/net/call";
import { fields, instantOrNull, list, numberOr, text, textOr } from "@/net/decode";
import { callHome, nothing } from "@/net/home/call";
import type { HomeTransport } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";

export interface HomeDevice {
  /** Base64url of the SHA-256 of its public key. */
  readonly id: string;
  readonly name: string;
  /** Whether it was let in; else it waits. */
  readonly paired: boolean;
  /** A device's id, `link` for a pairing link, `local` for the machine itself; "" while it waits. */
  readonly approvedBy: string;
  /** Milliseconds since 1970. */
  readonly added: number | null;
  readonly lastSeen: number | null;
}

export interface DeviceList {
  readonly devices: readonly HomeDevice[];
  /** The id of the one that asks. */
  readonly own: string | null;
}

/** A link for one further device. */
export interface Offer {
  /** What follows the # in it. */
  readonly fragment: string;
  /** Seconds for which it is good. */
  readonly lifeS: number;
}

export function decodeDevices(value: unknown): DeviceList {
  const document = fields(value);
  return { devices: list(document["devices"]).map(decodeDevice), own: textOr(document["own"], null) };
}

function decodeDevice(value: unknown): HomeDevice {
  const document = fields(value);
  return {
    id: text(document["id"]),
    name: text(document["name"]),
    paired: document["paired"] === true,
    approvedBy: textOr(document["approved_by"], ""),
    added: instantOrNull(document["added"]),
    lastSeen: instantOrNull(document["last_seen"]),
  };
}

export function decodeOffer(value: unknown): Offer {
  const document = fields(value);
  return { fragment: text(document["link_fragment"]), lifeS: numberOr(document["expires"], 600) };
}

export function listDevices(transport: HomeTransport): Promise<DeviceList> {
  return callHome(transport, "GET", "/devices", decodeDevices);
}

export async function renameHomeDevice(transport: HomeTransport, id: string, name: string): Promise<void> {
  await callHome(transport, "PATCH", `/devices/${segment(id)}`, nothing, { name });
}

export async function approveHomeDevice(transport: HomeTransport, id: string): Promise<void> {
  await callHome(transport, "POST", `/devices/${segment(id)}/approve`, nothing);
}

/** What is not there any more is removed already. */
export async function removeHomeDevice(transport: HomeTransport, id: string): Promise<void> {
  try {
    await callHome(transport, "DELETE", `/devices/${segment(id)}`, nothing);
  } catch (error) {
    if (!(error instanceof ProblemError && error.problem.status === 404)) throw error;
  }
}

export function offerPairing(transport: HomeTransport): Promise<Offer> {
  return callHome(transport, "POST", "/pairings", decodeOffer);
}
