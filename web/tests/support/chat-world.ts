/** What clients of homes need, for tests: waiting is short, storage is in memory. */
import type { ChatShelf, Key } from "@/store/home/chat-shelf";
import type { ChatWorld } from "@/store/home/feed";

export function testWorld(): ChatWorld {
  return {
    fetch: () => Promise.reject(new Error("expected no request of the browser")),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          resolve();
        };
        const timer = setTimeout(done, Math.min(ms, 2));
        signal.addEventListener("abort", done);
      }),
    now: () => performance.now(),
    date: () => Date.now(),
    random: Math.random,
    onWake: () => () => {},
    isVisible: () => true,
    onVisibility: () => () => {},
  };
}

export class MemoryShelf implements ChatShelf {
  readonly records = new Map<string, unknown>();

  get(key: Key): Promise<unknown> {
    return Promise.resolve(structuredClone(this.records.get(JSON.stringify(key))));
  }

  put(records: readonly (readonly [Key, unknown])[], removed: readonly Key[] = []): Promise<void> {
    for (const key of removed) this.records.delete(JSON.stringify(key));
    for (const [key, record] of records) this.records.set(JSON.stringify(key), structuredClone(record));
    return Promise.resolve();
  }

  keepOnly(passes: (key: Key) => boolean): Promise<void> {
    for (const key of [...this.records.keys()]) if (!passes(JSON.parse(key) as Key)) this.records.delete(key);
    return Promise.resolve();
  }
}

/** Waits until something holds. */
export async function until(what: string, holds: () => boolean, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`expected in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A repeatable source of random numbers (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
