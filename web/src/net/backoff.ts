/** Waiting times between attempts: doubling, bounded, with jitter so that many pages do not return at once. */

export interface BackoffBounds {
  readonly firstMs: number;
  readonly mostMs: number;
}

/**
 * @param attempt - 0 for the first wait.
 * @param random - in [0, 1).
 * @returns between half and all of the nominal wait, in milliseconds.
 */
export function backoffMs(attempt: number, bounds: BackoffBounds, random: number): number {
  const nominal = Math.min(bounds.mostMs, bounds.firstMs * 2 ** Math.min(attempt, 30));
  return nominal * (0.5 + random / 2);
}

/** Resolves after the time, or at once when the signal aborts; never rejects. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal?.addEventListener("abort", finish);
  });
}
