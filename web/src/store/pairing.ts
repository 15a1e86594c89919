/** Pairing this browser with a home: by a link, or by safety words that two people compare. */

import { listDevices, removeDevice } from "@/net/home/api";
import { browserName } from "@/net/home/browser-name";
import { askToBeLetIn, claimedIdentity, type Introduced, pairByLink } from "@/net/home/pairing";
import { whyNoSealing } from "@/net/home/problems";
import { browserWorld } from "@/net/home/world";
import { type Problem, ProblemError } from "@/net/problem";
import { type Bytes, sameBytes } from "@/protocol/sealed/bytes";
import { createDevice, type Device } from "@/protocol/sealed/device";
import type { PairingLink } from "@/protocol/sealed/pairing";
import { identities, refreshHomes, useHomes, userKey } from "@/store/homes";
import type { Identity } from "@/store/identity";
import { ShelfError } from "@/store/shelf";

const KEEPS_NOTHING: Problem = {
  slug: "home-keeps-nothing",
  title: "This browser keeps nothing for this page",
  detail:
    "Pairing makes a key that stays in this browser. Leave the private window, or allow this page to store data, and try again.",
  status: 0,
};
/** A link is good for ten minutes, and so is the key that was made for it. */
const PAIRING_LIFE_MS = 600_000;

/** How a link's home stands to what this browser has pinned. */
export type Standing = "new" | "same" | "other-identity";

export function standingOf(link: PairingLink): Standing {
  const known = useHomes.getState().homes.find(({ bridgeId }) => bridgeId === link.bridgeId);
  if (known === undefined || known.fingerprint === null) return "new";
  return sameBytes(known.fingerprint, link.fingerprint) ? "same" : "other-identity";
}

/** Whether a link is not needed, for its home lets this browser in as it is. */
export async function isPairedAlready(link: PairingLink): Promise<boolean> {
  if (standingOf(link) !== "same") return false;
  const home = useHomes.getState().homes.find(({ bridgeId }) => bridgeId === link.bridgeId);
  if (home === undefined) return false;
  try {
    await listDevices(home.transport);
    return true;
  } catch {
    return false;
  }
}

/**
 * Pairs with the home that a link is of. A home of that id that was known before is replaced only when it worked.
 *
 * @throws ProblemError - it is not paired.
 */
export async function pairWithLink(user: string | null, link: PairingLink, name: string): Promise<void> {
  await checkSealing();
  await kept(async () => {
    const { bridgeId, fingerprint } = link;
    const known = await mine(user, bridgeId);
    const same = pairedWith(known, fingerprint);
    const begun = known.find((identity) => isBegun(identity, link));
    // Kept before it is sent: if the answer is lost, the link is used up for just this key.
    const device = begun?.device ?? (await createDevice());
    const seq = same?.seq ?? 0;
    const identity: Identity = { ...fresh(user, bridgeId, device, name), state: "pairing", fingerprint, seq };
    await identities.keep(identity);
    const introduced = await pairByLink(link, { device, name }, seq, browserWorld);
    await identities.keep({ ...identity, state: "paired", seq: introduced.seq });
    await becomePaired(user);
    await removeFormer(same, identity);
  });
}

/** Pairs without a question, unless there is one. Returns whether this browser is paired with the link's home. */
export async function pairQuietly(user: string | null, link: PairingLink): Promise<boolean> {
  if (standingOf(link) === "other-identity") return false;
  if (await isPairedAlready(link)) return true;
  try {
    await pairWithLink(user, link, browserName(navigator.userAgent));
    return true;
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return false;
  }
}

function isBegun({ state, fingerprint, made }: Identity, link: PairingLink): boolean {
  const recent = Math.abs(Date.now() - made) < PAIRING_LIFE_MS;
  return state === "pairing" && recent && sameBytes(fingerprint, link.fingerprint);
}

/** Asks a home to let this browser in, and keeps that it waits. @throws ProblemError */
export async function beginWaiting(user: string | null, bridgeId: string, name: string): Promise<void> {
  await checkSealing();
  await kept(async () => {
    const fingerprint = await claimedIdentity(bridgeId, browserWorld);
    const identity: Identity = {
      ...fresh(user, bridgeId, await createDevice(), name),
      state: "waiting",
      fingerprint,
    };
    await askToBeLetIn(identity, identity, browserWorld);
    await identities.keep(identity);
    await refreshHomes(user);
  });
}

/**
 * Asks how it stands. Once the home lets it in, and a person has found the words equal, this browser is paired.
 *
 * @throws ProblemError
 */
export async function lookWaiting(user: string | null, identity: Identity): Promise<Introduced["state"]> {
  return await kept(async () => {
    const { state, seq } = await askToBeLetIn(identity, identity, browserWorld);
    if (state === "paired" && identity.agreed) {
      const same = pairedWith(await mine(user, identity.bridgeId), identity.fingerprint);
      await identities.keep({ ...identity, state: "paired", seq: Math.max(seq, same?.seq ?? 0) });
      await becomePaired(user);
      await removeFormer(same, identity);
    }
    return state;
  });
}

/** A person has compared the words, and they are the same: from now on this is who the home is. */
export async function agreeWaiting(user: string | null, identity: Identity): Promise<void> {
  await kept(async () => {
    await identities.keep({ ...identity, agreed: true });
    await refreshHomes(user);
  });
}

export async function giveUpWaiting(user: string | null, identity: Identity): Promise<void> {
  await kept(async () => {
    await identities.forget(identity);
    await refreshHomes(user);
  });
}

async function mine(user: string | null, bridgeId: string): Promise<Identity[]> {
  const { identities: all } = await identities.of(userKey(user));
  return all.filter((identity) => identity.bridgeId === bridgeId);
}

function fresh(user: string | null, bridgeId: string, device: Device, name: string) {
  return { user: userKey(user), bridgeId, device, name, agreed: false, seq: 0, made: Date.now() };
}

async function checkSealing(): Promise<void> {
  const why = await whyNoSealing();
  if (why !== null) throw new ProblemError(why);
}

async function becomePaired(user: string | null): Promise<void> {
  // Best effort: some browsers ask, some decide by themselves, and all keep the key at least for a while.
  await navigator.storage?.persist?.().catch(() => false);
  useHomes.setState({ damaged: false });
  await refreshHomes(user);
}

/** Who this browser is at the home of that identity. */
function pairedWith(known: readonly Identity[], fingerprint: Bytes): Identity | undefined {
  return known.find((one) => one.state === "paired" && sameBytes(one.fingerprint, fingerprint));
}

/** What this browser was before at the same home is of no use to anybody. */
async function removeFormer(former: Identity | undefined, { bridgeId, device }: Identity): Promise<void> {
  if (former === undefined || former.device.id === device.id) return;
  const home = useHomes.getState().homes.find((candidate) => candidate.bridgeId === bridgeId);
  if (home !== undefined) await removeDevice(home.transport, former.device.id).catch(() => {});
}

/** @throws ProblemError - also when the browser keeps nothing. */
async function kept<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ShelfError) throw new ProblemError(KEEPS_NOTHING);
    throw error;
  }
}
