/** What talking with a home needs of the browser; tests bring their own. */
import { sleep } from "@/net/backoff";

export interface HomeWorld {
  readonly fetch: (path: string, init: RequestInit) => Promise<Response>;
  /** Resolves after the time, or when the signal aborts; never rejects. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
  /** Milliseconds since 1970. */
  readonly date: () => number;
  readonly random: () => number;
  /**
   * Calls when what was connected before may be dead without a word, and what was given up may work again: the network
   * is back, or the page is looked at after it was hidden for a while. Returns what ends that.
   */
  readonly onWake: (listener: () => void) => () => void;
}

/** A page that was hidden for so long may have been frozen, and its network switched off. */
const HIDDEN_MS = 15_000;

export const browserWorld: HomeWorld = {
  fetch: (path, init) => fetch(path, init),
  sleep,
  now: () => performance.now(),
  date: () => Date.now(),
  random: Math.random,
  onWake,
};

function onWake(listener: () => void): () => void {
  let hidden: number | null = document.visibilityState === "hidden" ? Date.now() : null;
  const online = () => listener();
  const visibility = () => {
    if (document.visibilityState === "hidden") {
      hidden ??= Date.now();
      return;
    }
    const since = hidden;
    hidden = null;
    if (since !== null && Date.now() - since >= HIDDEN_MS) listener();
  };
  window.addEventListener("online", online);
  document.addEventListener("visibilitychange", visibility);
  return () => {
    window.removeEventListener("online", online);
    document.removeEventListener("visibilitychange", visibility);
  };
}
