/**
 * Who this browser is at each home, and who that home is: its own key, which no script can read, the home's pinned
 * fingerprint, and the highest number of a key statement that was accepted. Read back with a check; a record that does
 * not pass is none, and is removed. There is no way to have a home here without a fingerprint.
 */
import { type Fields, fields, numberOr, oneOf, text } from "@/net/decode";
import type { Bytes } from "@/protocol/sealed/bytes";
import { type Device, deviceId } from "@/protocol/sealed/device";
import type { Shelf } from "@/store/shelf";

const FORM = 1;
const FINGERPRINT_BYTES = 32;
const POINT_BYTES = 65;

/**
 * `paired`: the home lets this browser in. `pairing`: a link's secret is being used. `waiting`: somebody at home has to
 * let it in; the fingerprint is only claimed, until a person has compared the words (`agreed`).
 */
const STATES = ["paired", "pairing", "waiting"] as const;

export interface Identity {
  /** Of the person who is signed in. */
  readonly user: string;
  readonly bridgeId: string;
  readonly state: (typeof STATES)[number];
  readonly fingerprint: Bytes;
  readonly agreed: boolean;
  /** The highest number of a statement that was accepted; 0 for none. */
  readonly seq: number;
  readonly device: Device;
  /** What the home was told this browser is called. */
  readonly name: string;
  /** When it was made, in milliseconds since 1970. */
  readonly made: number;
}

/** One paired and one that is being paired for each user and home. */
function keyOf({ user, bridgeId, state }: Pick<Identity, "user" | "bridgeId" | "state">): string {
  return JSON.stringify([user, bridgeId, state === "paired" ? "paired" : "new"]);
}

export interface Found {
  readonly identities: readonly Identity[];
  /** Records that did not pass the check, and were removed. */
  readonly damaged: number;
}

export class IdentityStore {
  constructor(readonly shelf: Shelf) {}

  /** Returns a user's identities. @throws ShelfError */
  async of(user: string): Promise<Found> {
    const identities: Identity[] = [];
    const damaged: string[] = [];
    for (const [key, record] of await this.shelf.all()) {
      const identity = await readIdentity(record);
      if (identity === null || keyOf(identity) !== key) damaged.push(key);
      else if (identity.user === user) identities.push(identity);
    }
    if (damaged.length > 0) await this.shelf.replace(damaged, []);
    identities.sort((one, other) => one.made - other.made);
    return { identities, damaged: damaged.length };
  }

  /** Keeps an identity. One that is paired takes the place of what was known of that home. @throws ShelfError */
  async keep(identity: Identity): Promise<void> {
    const key = keyOf(identity);
    const superseded = identity.state === "paired" ? [keyOf({ ...identity, state: "pairing" })] : [];
    await this.shelf.replace(superseded, [[key, { form: FORM, ...identity }]]);
  }

  /** @throws ShelfError */
  async forget(identity: Identity): Promise<void> {
    await this.shelf.replace([keyOf(identity)], []);
  }

  /** Returns the highest number that any tab has accepted. @throws ShelfError */
  async highestSeq(identity: Identity): Promise<number> {
    const key = keyOf(identity);
    const record = (await this.shelf.all()).find(([candidate]) => candidate === key)?.[1];
    const kept = record === undefined ? null : await readIdentity(record);
    return kept?.device.id === identity.device.id ? kept.seq : identity.seq;
  }

  /** Keeps a number, unless a higher one is kept. @throws ShelfError */
  async acceptSeq(identity: Identity, seq: number): Promise<void> {
    await this.shelf.change(keyOf(identity), (record) => {
      if (typeof record !== "object" || record === null) return undefined;
      const kept = numberOr((record as Fields)["seq"], 0);
      return seq > kept ? { ...record, seq } : undefined;
    });
  }
}

/** Reads a record; `null` if it is none, or was tampered with. */
export async function readIdentity(record: unknown): Promise<Identity | null> {
  try {
    const document = fields(record);
    const identity: Identity = {
      user: text(document["user"]),
      bridgeId: text(document["bridgeId"]),
      state: oneOf(document["state"], STATES),
      fingerprint: bytes(document["fingerprint"], FINGERPRINT_BYTES),
      agreed: document["agreed"] === true,
      seq: count(document["seq"]),
      device: await readDevice(fields(document["device"])),
      name: text(document["name"]),
      made: count(document["made"]),
    };
    return document["form"] === FORM && /^[\w-]{1,64}$/.test(identity.bridgeId) ? identity : null;
  } catch {
    return null;
  }
}

async function readDevice(document: Fields): Promise<Device> {
  const point = bytes(document["point"], POINT_BYTES);
  const id = text(document["id"]);
  const privateKey = document["privateKey"];
  if (!(privateKey instanceof CryptoKey) || !isDeviceKey(privateKey) || id !== (await deviceId(point)))
    throw new TypeError("expected a device's key");
  return { id, point, privateKey };
}

function isDeviceKey({ type, extractable, algorithm, usages }: CryptoKey): boolean {
  const { name, namedCurve } = algorithm as EcKeyAlgorithm;
  return (
    type === "private" &&
    !extractable &&
    name === "ECDSA" &&
    namedCurve === "P-256" &&
    usages.includes("sign")
  );
}

function bytes(value: unknown, size: number): Bytes {
  if (!(value instanceof Uint8Array) || value.length !== size) throw new TypeError(`expected ${size} bytes`);
  return new Uint8Array(value);
}

function count(value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new TypeError("expected a count");
  return value as number;
}
