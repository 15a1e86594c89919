/** Asking a server that does not answer again: soon, then less often, and at once when the network is back. */
import { type BackoffBounds, backoffMs, sleep } from "@/net/backoff";
import { ProblemError } from "@/net/problem";

const BOUNDS: BackoffBounds = { firstMs: 1_000, mostMs: 15_000 };
let waking = new AbortController();

/** Ends the wait: somebody wants to know now. */
export function askAgain(): void {
  waking.abort();
}

/**
 * Asks until there is an answer.
 *
 * @param isAnswer - whether a refusal with this status is one; 0 stands for no contact.
 * @param onSilence - called whenever there was none.
 * @throws ProblemError - a refusal that is an answer.
 */
export async function untilAnswered<T>(
  ask: () => Promise<T>,
  isAnswer: (status: number) => boolean,
  onSilence: () => void,
): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ProblemError) || isAnswer(error.problem.status)) throw error;
    }
    onSilence();
    waking = new AbortController();
    window.addEventListener("online", askAgain, { signal: waking.signal });
    await sleep(backoffMs(attempt, BOUNDS, Math.random()), waking.signal);
    waking.abort();
  }
}
