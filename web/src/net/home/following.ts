/**
 * One answer over however many connections. When one breaks, the answer is asked for again by its name from the first
 * byte on that is missing, so whoever reads sees one unbroken content. What cannot be had is an error, never an end.
 */
import { type BackoffBounds, backoffMs } from "@/net/backoff";
import { BROKEN_CONNECTION, BROKEN_OFF, NO_CONTINUATION, OUT_OF_TIME, refusalOf } from "@/net/home/problems";
import { type HomeRequest, type HomeResponse, sendingMs } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { isPassing, type Problem, ProblemError } from "@/net/problem";

/** What one connection brings of an answer. */
export interface Part {
  readonly status: number;
  readonly headers: Headers;
  /** Where its content begins; `null` if it does not say. */
  readonly offset: number | null;
  /**
   * Returns the next bytes; `null` when all of the answer came.
   *
   * @throws BreakError
   */
  next(): Promise<Uint8Array<ArrayBuffer> | null>;
}

/**
 * Asks once.
 *
 * @param offset - bytes of the content that are here.
 * @param link - ends the connection when it aborts.
 * @throws BreakError - no answer came, or none that begins.
 * @throws ProblemError - it is refused, and would be a second later, unless `isPassing`.
 */
export type Connect = (request: HomeRequest, offset: number, link: AbortSignal) => Promise<Part>;

/** The connection broke, or brought what is not of the answer. */
export class BreakError extends Error {
  constructor(readonly problem: Problem = BROKEN_CONNECTION) {
    super(problem.title);
    this.name = "BreakError";
  }
}

/** Milliseconds of trying for more bytes after the last ones, as long as a home keeps an answer. Sleep is not counted. */
const BUDGET_MS = 600_000;
/** Once all is sent: an engine may have to load its model before it answers at all, and a bridge be woken. */
const FIRST_HEAD_MS = 60_000;
/** The rest of an answer that is there. */
const REST_HEAD_MS = 15_000;
/** A home that streams says something at least every 15 s, or can be asked again without loss. */
const SILENCE_MS = 30_000;
const BOUNDS: BackoffBounds = { firstMs: 250, mostMs: 4_000 };
/** The home answered, and broke off without a byte, this often in a row: the rest will not come. */
const MOST_EMPTY = 4;

/** Asks for an answer, and follows it to its end. Throws as `HomeTransport.fetch` does. */
export async function follow(
  connect: Connect,
  request: HomeRequest,
  signal: AbortSignal,
  world: HomeWorld,
): Promise<HomeResponse> {
  return await new Following(connect, request, signal, world).begin();
}

class Following {
  #part: Part | undefined;
  #ended = false;
  #link: Link | undefined;
  #status: number | undefined;
  #received = 0;
  /** Parts in a row that broke off without a byte. */
  #empty = 0;
  #whole: (whole: boolean) => void = () => {};
  #leave: () => void = () => {};

  constructor(
    readonly connect: Connect,
    readonly request: HomeRequest,
    readonly signal: AbortSignal,
    readonly world: HomeWorld,
  ) {}

  async begin(): Promise<HomeResponse> {
    this.signal.throwIfAborted();
    this.#part = await this.#first();
    const { status, headers } = this.#part;
    this.#status = status;
    const whole = new Promise<boolean>((resolve) => {
      this.#whole = resolve;
    });
    const content = new ReadableStream<Uint8Array<ArrayBuffer>>(
      {
        start: (controller) => {
          // Also when nobody reads just then.
          this.#leave = () => {
            this.#end(false);
            controller.error(this.signal.reason);
          };
          this.signal.addEventListener("abort", this.#leave);
        },
        pull: async (controller) => {
          try {
            const bytes = await this.#next();
            if (this.#ended) return;
            if (bytes !== null) controller.enqueue(bytes);
            else {
              this.#end(true);
              controller.close();
            }
          } catch (error) {
            if (this.#ended) return;
            this.#end(false);
            controller.error(error);
          }
        },
        cancel: () => this.#end(false),
      },
      // Nothing is read before somebody wants it.
      { highWaterMark: 0 },
    );
    return { status, headers, content, whole };
  }

  #end(whole: boolean): void {
    this.#ended = true;
    this.signal.removeEventListener("abort", this.#leave);
    this.#link?.close();
    this.#whole(whole);
  }

  /** Milliseconds in which a connection has to answer. */
  get #headMs(): number {
    return this.#status === undefined ? FIRST_HEAD_MS + sendingMs(this.request) : REST_HEAD_MS;
  }

  async #first(): Promise<Part> {
    try {
      return await this.#connect(this.#headMs);
    } catch (error) {
      this.signal.throwIfAborted();
      if (!(error instanceof BreakError)) throw error;
      if (this.request.exchange === undefined) throw new ProblemError(error.problem);
      return await this.#again(error.problem);
    }
  }

  async #next(): Promise<Uint8Array<ArrayBuffer> | null> {
    for (;;) {
      try {
        if (this.#part === undefined || this.#link === undefined) throw new BreakError();
        const part = this.#part;
        const bytes = await this.#link.within(SILENCE_MS, () => part.next());
        this.signal.throwIfAborted();
        if (bytes === null) return null;
        if (bytes.length === 0) continue;
        this.#received += bytes.length;
        this.#empty = 0;
        return bytes;
      } catch (error) {
        this.signal.throwIfAborted();
        if (!(error instanceof BreakError)) throw error;
        if (this.request.exchange === undefined) throw new ProblemError(error.problem);
        // A silent connection that was left is none that the home broke off.
        if (this.#link?.lost !== true) this.#empty += 1;
        if (this.#empty >= MOST_EMPTY) {
          throw new ProblemError(error.problem === BROKEN_CONNECTION ? BROKEN_OFF : error.problem);
        }
        this.#part = await this.#again(error.problem);
      }
    }
  }

  /** Asks until there is a connection that goes on. */
  async #again(why: Problem): Promise<Part> {
    this.#link?.close();
    this.request.onReattaching?.(true);
    const waking = new Waking(this.signal, this.world);
    let problem = why;
    let spent = 0;
    try {
      for (let attempt = 0; spent < BUDGET_MS; attempt += 1) {
        const wait = Math.max(
          backoffMs(attempt, BOUNDS, this.world.random()),
          (problem.retryAfterS ?? 0) * 1000,
        );
        if (await waking.sleep(wait)) attempt = 0;
        this.signal.throwIfAborted();
        const most = this.#headMs;
        const began = this.world.now();
        try {
          const part = await this.#connect(most);
          const refusal = await this.#refusal(part);
          if (refusal === null) return part;
          if (!isPassing(refusal)) throw new ProblemError(refusal);
          problem = refusal;
        } catch (error) {
          this.signal.throwIfAborted();
          problem = problemOfTry(error);
        }
        spent += wait + Math.min(this.world.now() - began, most);
      }
      throw new ProblemError(problem);
    } finally {
      waking.close();
      this.request.onReattaching?.(false);
    }
  }

  /** Why a part is not the rest of the answer; `null` if it is. */
  async #refusal(part: Part): Promise<Problem | null> {
    if (this.#status === undefined) return null;
    if (part.status === this.#status && (part.offset ?? 0) === this.#received) return null;
    if (part.offset !== null || part.status < 400) return NO_CONTINUATION;
    const content = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: async (controller) => {
        const bytes = await part.next();
        if (bytes === null) controller.close();
        else controller.enqueue(bytes);
      },
    });
    const whole = Promise.resolve(false);
    return await refusalOf({ status: part.status, headers: part.headers, content, whole });
  }

  async #connect(most: number): Promise<Part> {
    const link = new Link(this.signal, this.world);
    // What has no name cannot be asked for again, so it is given a chance until it has begun.
    if (this.request.exchange !== undefined) link.watch();
    this.#link = link;
    try {
      const part = await link.within(most, () => this.connect(this.request, this.#received, link.signal));
      link.watch();
      return part;
    } catch (error) {
      link.close();
      throw error;
    }
  }
}

/** What a failed try says. @throws ProblemError - a further one would fail as well. */
function problemOfTry(error: unknown): Problem {
  if (error instanceof BreakError) return error.problem;
  if (error instanceof ProblemError && isPassing(error.problem)) return error.problem;
  throw error;
}

/** One connection: it ends with its reader's signal, when it says nothing for too long, and when it may be dead. */
class Link {
  readonly #closing = new AbortController();
  #stopWatching: (() => void) | undefined;
  #lost: ((error: BreakError) => void) | undefined;
  lost = false;

  constructor(
    readonly reader: AbortSignal,
    readonly world: HomeWorld,
  ) {
    reader.addEventListener("abort", this.#close);
  }

  /** Takes the connection for dead when the page wakes. */
  watch(): void {
    this.#stopWatching ??= this.world.onWake(() => this.#lose(BROKEN_CONNECTION));
  }

  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  readonly #close = (): void => this.close();

  close(): void {
    this.reader.removeEventListener("abort", this.#close);
    this.#stopWatching?.();
    this.#closing.abort(this.reader.reason);
  }

  #lose(problem: Problem): void {
    this.lost = true;
    this.#lost?.(new BreakError(problem));
    this.close();
  }

  /** Does what must be done within some milliseconds. @throws BreakError - it was not, or the connection may be dead. */
  async within<T>(ms: number, work: () => Promise<T>): Promise<T> {
    if (this.lost) throw new BreakError();
    const timer = setTimeout(() => this.#lose(OUT_OF_TIME), ms);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#lost = reject;
        work().then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
      this.#lost = undefined;
    }
  }
}

/** Waiting that ends early when trying again may work. */
class Waking {
  #sleep = new AbortController();
  #woken = false;
  readonly #stopListening: () => void;

  constructor(
    readonly reader: AbortSignal,
    readonly world: HomeWorld,
  ) {
    reader.addEventListener("abort", this.#abort);
    this.#stopListening = world.onWake(() => {
      this.#woken = true;
      this.#sleep.abort();
    });
  }

  readonly #abort = (): void => this.#sleep.abort();

  /** Returns whether it was woken. */
  async sleep(ms: number): Promise<boolean> {
    if (!this.#woken) await this.world.sleep(ms, this.#sleep.signal);
    const woken = this.#woken;
    this.#woken = false;
    if (!this.reader.aborted) this.#sleep = new AbortController();
    return woken;
  }

  close(): void {
    this.reader.removeEventListener("abort", this.#abort);
    this.#stopListening();
  }
}
