/** Follows the pull of a model to its end, over however many connections. */
import { listModels, type Progress, pullModel } from "@/net/home/api";
import { RefusedError } from "@/net/home/request";
import { mayPass, Retrying } from "@/net/home/retrying";
import type { HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { ProblemError } from "@/net/problem";

/**
 * Begins to pull a model, or joins the pull of it, and tells how far it is until it has ended.
 *
 * @throws RefusedError - the home does not do it; or what the signal aborted with, which ends no pull.
 */
export async function followPull(
  home: HomeTransport,
  model: string,
  onProgress: (progress: Progress) => void,
  signal: AbortSignal,
  world: HomeWorld,
): Promise<Progress> {
  const retrying = new Retrying(signal, world);
  /** As the home calls it, once it has said so. */
  let known: string | null = null;
  for (;;) {
    let retryAfterS: number | undefined;
    try {
      // Asking for it once more would begin one anew that has ended meanwhile.
      const ended = known === null ? null : await endOf(home, known, signal);
      if (ended !== null) {
        onProgress(ended);
        return ended;
      }
      for await (const progress of pullModel(home, { model }, signal)) {
        retrying.good();
        known = progress.model;
        onProgress(progress);
        if (progress.state !== "pulling") return progress;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ProblemError)) throw error;
      if (error instanceof RefusedError && !mayPass(error.problem)) throw error;
      retryAfterS = error.problem.retryAfterS;
    }
    await retrying.wait(retryAfterS);
    signal.throwIfAborted();
  }
}

/** How a pull has ended; `null` if it goes on, or is not known any more. */
async function endOf(home: HomeTransport, model: string, signal: AbortSignal): Promise<Progress | null> {
  const { pulls } = await listModels(home, signal);
  const found = pulls.find((progress) => progress.model === model);
  return found === undefined || found.state === "pulling" ? null : found;
}
