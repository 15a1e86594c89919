/**
 * The homes of who is signed in, as this browser knows them. Each has its own key here, and a way to it. A home that is
 * not in the list is not paired with this browser: what the server calls a machine of the account is not enough.
 */
import { create } from "zustand";
import { BROKEN_CONNECTION } from "@/net/home/problems";
import type { HomeMemory, SealedHome, Trouble } from "@/net/home/sealed";
import { isServedByHome } from "@/net/home/served";
import type { HomeTransport } from "@/net/home/transport";
import { browserWorld } from "@/net/home/world";
import { ProblemError } from "@/net/problem";
import type { Bytes } from "@/protocol/sealed/bytes";
import { type Identity, IdentityStore } from "@/store/identity";
import { BrowserShelf, ShelfError } from "@/store/shelf";

export interface Home {
  /** As in the status (`BridgeStatus.id`); `local` for the home that serves this page itself. */
  readonly bridgeId: string;
  /** What is pinned; `null` for the home that serves this page itself. */
  readonly fingerprint: Bytes | null;
  /** This browser's id there. */
  readonly deviceId: string | null;
  readonly transport: HomeTransport;
  /** What somebody has to do something about; `null` while nothing is known to be wrong. */
  readonly trouble: Trouble | null;
}

interface Homes {
  /** False until the browser's storage was read. */
  readonly ready: boolean;
  /** The longest known first. */
  readonly homes: readonly Home[];
  /** Those where somebody has yet to let this browser in. */
  readonly waiting: readonly Identity[];
  /** Whether records were damaged, and removed: these homes have to be paired anew. */
  readonly damaged: boolean;
  /** Whether this browser keeps nothing for this page, so that it cannot be paired. */
  readonly keepsNothing: boolean;
}

const EMPTY: Homes = { ready: false, homes: [], waiting: [], damaged: false, keepsNothing: false };

export const LOCAL = "local";
export const useHomes = create<Homes>(() => EMPTY);
export const identities = new IdentityStore(new BrowserShelf());

/** The same way for as long as the key is the same: it keeps what it has learned. */
const ways = new Map<string, HomeTransport>();
/** Tells this page's other tabs that the list changed. */
let channel: BroadcastChannel | undefined;
let turn = 0;

/**
 * Follows the homes of a user until the returned function is called.
 *
 * @param first - done when the list was read, before it is shown.
 */
export function followHomes(user: string | null, first: () => Promise<void>): () => void {
  channel = new BroadcastChannel("c2l-homes");
  channel.onmessage = () => void readHomes(user);
  void begin(user, first);
  return () => {
    turn += 1;
    channel?.close();
    channel = undefined;
    ways.clear();
    useHomes.setState(EMPTY, true);
  };
}

async function begin(user: string | null, first: () => Promise<void>): Promise<void> {
  await readHomes(user, false);
  await first();
  await readHomes(user);
}

/** Reads the list anew, for this tab and the others, after it was changed. */
export async function refreshHomes(user: string | null): Promise<void> {
  channel?.postMessage("changed");
  await readHomes(user);
}

export function userKey(user: string | null): string {
  return user ?? "";
}

async function readHomes(user: string | null, ready = true): Promise<void> {
  if (isServedByHome()) {
    const transport = loadedWay(
      async () => new (await import("@/net/home/direct")).DirectTransport(browserWorld),
    );
    const local = { bridgeId: LOCAL, fingerprint: null, deviceId: null, transport, trouble: null };
    useHomes.setState({ ...EMPTY, ready: true, homes: [local] }, true);
    return;
  }
  turn += 1;
  const mine = turn;
  try {
    const found = await identities.of(userKey(user));
    if (mine !== turn) return;
    const paired = found.identities.filter(({ state }) => state === "paired");
    const { homes: known, damaged } = useHomes.getState();
    useHomes.setState({
      ready,
      homes: paired.map((identity) => homeOf(identity, known)),
      waiting: found.identities.filter(({ state }) => state === "waiting"),
      damaged: damaged || found.damaged > 0,
      keepsNothing: false,
    });
  } catch (error) {
    if (!(error instanceof ShelfError)) throw error;
    if (mine === turn) useHomes.setState({ ...EMPTY, ready, keepsNothing: true }, true);
  }
}

function homeOf(identity: Identity, known: readonly Home[]): Home {
  const { bridgeId, fingerprint, device } = identity;
  const before = known.find((home) => home.bridgeId === bridgeId && home.deviceId === device.id);
  const transport = ways.get(device.id) ?? wayTo(identity);
  ways.set(device.id, transport);
  return { bridgeId, fingerprint, deviceId: device.id, transport, trouble: before?.trouble ?? null };
}

function wayTo(identity: Identity): HomeTransport {
  const { id } = identity.device;
  // What this page accepted counts also when the browser has thrown its storage away meanwhile.
  let accepted = identity.seq;
  const memory: HomeMemory = {
    highest: async () => Math.max(accepted, await identities.highestSeq(identity).catch(() => 0)),
    accept: async (seq) => {
      accepted = Math.max(accepted, seq);
      await identities.acceptSeq(identity, seq).catch(() => {});
    },
    onTrouble: (trouble) => note(id, trouble),
  };
  return sealedWay(identity, memory);
}

/** What carries requests is loaded beside the page, not before it: nothing is asked of a home before its list is read. */
function loadedWay(load: () => Promise<HomeTransport>): HomeTransport {
  let loading = load();
  loading.catch(() => {});
  return {
    fetch: async (request, signal) => {
      const transport = await loading.catch(() => {
        // The network was gone just then.
        loading = load();
        return loading.catch(() => {
          throw new ProblemError(BROKEN_CONNECTION);
        });
      });
      return await transport.fetch(request, signal);
    },
  };
}

function sealedWay(home: SealedHome, memory: HomeMemory): HomeTransport {
  return loadedWay(
    async () => new (await import("@/net/home/sealed")).SealedTransport(home, memory, browserWorld),
  );
}

function note(deviceId: string, trouble: Trouble | null): void {
  const { homes } = useHomes.getState();
  if (!homes.some((home) => home.deviceId === deviceId && home.trouble !== trouble)) return;
  useHomes.setState({
    homes: homes.map((home) => (home.deviceId === deviceId ? { ...home, trouble } : home)),
  });
}

/** Forgets a home in this browser. The home goes on listing this browser until it is removed there. */
export async function forgetHome(user: string | null, bridgeId: string): Promise<void> {
  const found = await identities.of(userKey(user));
  for (const identity of found.identities) {
    if (identity.bridgeId === bridgeId) await identities.forget(identity);
  }
  await refreshHomes(user);
}
