/**
 * The user's API keys. Their list is at home, and each home has its own. While none can be asked, the page shows what
 * this browser saw last, so that a key can be revoked at any time.
 */
import { create } from "zustand";
import { fields, instantOrNull, list, textOr } from "@/net/decode";
import { listKeys } from "@/net/home/api";
import { type ApiKey, decodeKey, deleteKey, type NewKeyRequest, postKey } from "@/net/keys";
import { type Problem, ProblemError } from "@/net/problem";
import { type Home, useHomes } from "@/store/homes";
import { forgetOthersKeys, KEPT_KEYS, onForgotten } from "@/store/kept-keys";
import { load, save } from "@/store/storage";

/** More than anybody keeps; the rest would only fill the browser's storage. */
const MOST_REMEMBERED = 200;

export interface ListedKey extends ApiKey {
  /** Whether a machine that answered last has it in its list. */
  readonly atHome: boolean;
}

interface Remembered {
  readonly user: string | null;
  /** When the home answered last, in milliseconds since 1970; `null` for never. */
  readonly heard: number | null;
  readonly keys: readonly ListedKey[];
}

interface KeysState extends Remembered {
  readonly loading: boolean;
  /** Why the home could not be asked; `null` if the list is what it says. */
  readonly problem: Problem | null;
}

const UNPAIRED: Problem = {
  slug: null,
  title: "This browser is paired with none of them",
  detail: "Pair it with one, and it can read the list.",
  status: 0,
};
const EMPTY: KeysState = { user: null, heard: null, keys: [], loading: false, problem: null };

export const useKeys = create<KeysState>(() => EMPTY);

let latest = 0;

onForgotten(() => {
  latest += 1;
  useKeys.setState(EMPTY, true);
});

/** Shows what this browser remembers for the user, and asks the homes. @throws ProblemError - nobody is signed in. */
export async function openKeys(user: string | null): Promise<void> {
  forgetOthersKeys(user);
  const known = load(KEPT_KEYS, decodeRemembered) ?? { user, heard: null, keys: [] };
  useKeys.setState({ ...EMPTY, ...known }, true);
  await loadKeys();
}

/**
 * Asks the homes, and shows what one says as soon as it is there. Of several calls at once, the last one counts.
 *
 * @throws ProblemError - nobody is signed in.
 */
export async function loadKeys(): Promise<void> {
  latest += 1;
  const turn = latest;
  useKeys.setState({ loading: true });
  const { keys: seen } = useKeys.getState();
  const heard: ApiKey[][] = [];
  const problems: ProblemError[] = [];
  const ask = async ({ transport }: Home) => {
    try {
      const { keys } = await listKeys(transport);
      if (turn !== latest) return;
      heard.push(keys.map(decodeKey));
      const now = Date.now();
      become({ heard: now, keys: merge(union(heard), seen, now), problem: null });
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      problems.push(error);
    }
  };
  await Promise.all(useHomes.getState().homes.map(ask));
  if (turn !== latest) return;
  const [first] = problems;
  useKeys.setState({ loading: false, problem: heard.length > 0 ? null : (first?.problem ?? UNPAIRED) });
  const signedOut = problems.find(({ problem }) => problem.slug === "unauthenticated");
  if (signedOut !== undefined) throw signedOut;
}

/** What several homes list as one list. What one of them knows to be revoked, is revoked. Pure. */
export function union(lists: readonly (readonly ApiKey[])[]): ApiKey[] {
  const all = new Map<string, ApiKey>();
  for (const key of lists.flat()) {
    const known = all.get(key.id) ?? key;
    all.set(key.id, {
      ...known,
      // A home that met a key before it was told of it calls it by its id.
      name: known.name === known.id ? key.name : known.name,
      lastUsed: Math.max(known.lastUsed ?? 0, key.lastUsed ?? 0) || null,
      revoked: known.revoked || key.revoked,
    });
  }
  return [...all.values()];
}

/**
 * What the home lists, and what it does not list though this browser saw it: a key may have been made while no machine
 * was there to be told. Pure.
 */
export function merge(home: readonly ApiKey[], seen: readonly ListedKey[], now: number): ListedKey[] {
  const listed = new Set(home.map((key) => key.id));
  const unlisted = seen.filter((key) => !listed.has(key.id) && (key.expires === null || key.expires > now));
  const all = [
    ...home.filter((key) => !key.revoked).map((key) => ({ ...key, atHome: true })),
    ...unlisted.map((key) => ({ ...key, atHome: false })),
  ];
  return all.sort((one, other) => (other.created ?? 0) - (one.created ?? 0));
}

/** Makes a key and returns its text, which is kept nowhere. @throws ProblemError */
export async function makeKey(request: NewKeyRequest): Promise<string> {
  const { key, secret } = await postKey(request);
  const { keys } = useKeys.getState();
  become({ keys: [{ ...key, atHome: true }, ...keys.filter(({ id }) => id !== key.id)] });
  return secret;
}

/** @throws ProblemError - it was not revoked. */
export async function revokeKey(id: string): Promise<void> {
  await deleteKey(id);
  become({ keys: useKeys.getState().keys.filter((key) => key.id !== id) });
}

function become(change: Partial<KeysState>): void {
  useKeys.setState(change);
  const { user, heard, keys } = useKeys.getState();
  const at = heard === null ? null : heard / 1000;
  save(KEPT_KEYS, { user, heard: at, keys: keys.slice(0, MOST_REMEMBERED).map(encode) });
}

function encode(key: ListedKey): Record<string, unknown> {
  const seconds = (instant: number | null) => (instant === null ? null : instant / 1000);
  return {
    id: key.id,
    name: key.name,
    created: seconds(key.created),
    expires: seconds(key.expires),
    last_used: seconds(key.lastUsed),
    routes: key.routes,
    models: key.models,
    requests_per_minute: key.requestsPerMinute,
    tokens_per_day: key.tokensPerDay,
    bridge: key.bridge,
    at_home: key.atHome,
  };
}

/** @throws DecodeError - the stored value is no list of keys. */
export function decodeRemembered(value: unknown): Remembered {
  const document = fields(value);
  return {
    user: textOr(document["user"], null),
    heard: instantOrNull(document["heard"]),
    keys: list(document["keys"]).map((entry) => {
      const key = decodeKey(entry);
      return { ...key, atHome: fields(entry)["at_home"] === true };
    }),
  };
}
