/** Waiting between attempts that go on for as long as somebody wants what they are for. */
import { type BackoffBounds, backoffMs } from "@/net/backoff";
import type { HomeWorld } from "@/net/home/world";
import { isPassing, type Problem } from "@/net/problem";

/** What is back is to be noticed within two seconds, but not asked for every second through a night. */
const SOON: BackoffBounds = { firstMs: 200, mostMs: 1_500 };
const LATER: BackoffBounds = { firstMs: 200, mostMs: 10_000 };
/** Milliseconds of failing after which it may take a while. */
const SOON_FOR_MS = 120_000;

export class Retrying {
  #attempt = 0;
  #failingSince: number | null = null;
  #sleep = new AbortController();

  constructor(
    readonly signal: AbortSignal,
    readonly world: HomeWorld,
  ) {}

  /** It worked. */
  good(): void {
    this.#attempt = 0;
    this.#failingSince = null;
  }

  /** Waits as long as is right after one more failure, or until trying again may work. */
  async wait(retryAfterS = 0): Promise<void> {
    const { world } = this;
    this.#failingSince ??= world.now();
    const bounds = world.now() - this.#failingSince < SOON_FOR_MS ? SOON : LATER;
    const ms = Math.max(backoffMs(this.#attempt, bounds, world.random()), retryAfterS * 1000);
    this.#attempt += 1;
    this.#sleep = new AbortController();
    const end = () => this.#sleep.abort();
    const stop = world.onWake(() => {
      this.good();
      end();
    });
    this.signal.addEventListener("abort", end);
    try {
      if (!this.signal.aborted) await world.sleep(ms, this.#sleep.signal);
    } finally {
      this.signal.removeEventListener("abort", end);
      stop();
    }
  }
}

/** Whether a refusal of the home itself would be another one a moment later. */
export function mayPass(problem: Problem): boolean {
  return isPassing(problem);
}
