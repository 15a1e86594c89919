/** Follows a run to its end, over however many connections, from whatever is here of it already. */
import { type Run, type RunEvent, type RunText, watchRun } from "@/net/home/api";
import { bytesOf, endOf, type Kind, Overlap, type Segment } from "@/net/home/overlap";
import { RefusedError } from "@/net/home/request";
import { mayPass, Retrying } from "@/net/home/retrying";
import type { HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { type Problem, ProblemError } from "@/net/problem";

/** Bytes of the end of what is here that are asked for again: more than a bridge that is killed loses of any pace. */
const OVERLAP = 16 * 1024;
/** So often what is here may turn out not to be the run's text. */
const MOST_RESTARTS = 5;

const MIXED_UP: Problem = {
  slug: null,
  title: "The answer was not understood",
  detail: "Your machine sends another text each time.",
  status: 200,
};

/** Where a run's text goes. */
export interface RunSink {
  /** Bytes that are here. */
  readonly offset: number;
  /** What is here, in its order. */
  readonly segments: readonly Segment[];
  take(kind: Kind, text: string): void;
  /** What is here is not the run's text: away with it. */
  restart(): void;
  is(state: RunEvent["state"]): void;
  /** The connection broke, or is back. */
  reattaching(reattaching: boolean): void;
}

/** What came is not what the offset asked for, or not what came before. */
class OtherTextError extends Error {}

/**
 * Returns the run as it ended, with all its text in the sink.
 *
 * @throws RefusedError - the home has no such run, for example; or what the signal aborted with.
 */
export async function followRun(
  home: HomeTransport,
  run: string,
  sink: RunSink,
  signal: AbortSignal,
  world: HomeWorld,
): Promise<Run> {
  const retrying = new Retrying(signal, world);
  let restarts = 0;
  const restart = () => {
    restarts += 1;
    if (restarts > MOST_RESTARTS) throw new ProblemError(MIXED_UP);
    sink.restart();
  };
  for (;;) {
    let retryAfterS: number | undefined;
    try {
      const ended = await attach(home, run, sink, signal, () => retrying.good());
      if (ended !== null) return ended;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OtherTextError || isBeyond(error, sink)) {
        restart();
        continue;
      }
      if (!(error instanceof ProblemError)) throw error;
      if (error instanceof RefusedError && !mayPass(error.problem)) throw error;
      retryAfterS = error.problem.retryAfterS;
    }
    sink.reattaching(true);
    await retrying.wait(retryAfterS);
    signal.throwIfAborted();
  }
}

/** Whether the home has less than what is here, so much that not even the overlap is there. */
function isBeyond(error: unknown, sink: RunSink): boolean {
  return error instanceof RefusedError && error.problem.slug === "conflict" && sink.offset > 0;
}

/** Follows one connection; returns the run if it has ended. */
async function attach(
  home: HomeTransport,
  run: string,
  sink: RunSink,
  signal: AbortSignal,
  onGood: () => void,
): Promise<Run | null> {
  const overlap = new Overlap(endOf(sink.segments, OVERLAP));
  let offset = sink.offset - overlap.left;
  for await (const event of watchRun(home, run, { offset }, signal)) {
    onGood();
    sink.reattaching(false);
    if (event.text !== null) offset = place(event.text, offset, overlap, sink);
    if (event.run !== null) {
      if (offset !== event.run.size || sink.offset !== offset) throw new OtherTextError();
      return event.run;
    }
    sink.is(event.state);
  }
  return null;
}

function place({ at, end, kind, text }: RunText, offset: number, overlap: Overlap, sink: RunSink): number {
  if (at !== offset || end - at !== bytesOf(text)) throw new OtherTextError();
  const fresh = overlap.take(kind, text);
  if (fresh === null) throw new OtherTextError();
  if (fresh !== "") sink.take(kind, fresh);
  return end;
}
