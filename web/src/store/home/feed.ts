/** Follows what changes at a home, for as long as the page is looked at. */
import { type Changes, getHome, watchChanges } from "@/net/home/api";
import { RefusedError } from "@/net/home/request";
import { Retrying } from "@/net/home/retrying";
import type { HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { type Problem, ProblemError } from "@/net/problem";

/** What chatting needs of the browser besides. */
export interface ChatWorld extends HomeWorld {
  /** Whether somebody can see the page. */
  readonly isVisible: () => boolean;
  /** Calls when that changes. Returns what ends it. */
  readonly onVisibility: (listener: () => void) => () => void;
}

/** Up to which change everything here is right. */
export interface Position {
  readonly epoch: string;
  readonly seen: number;
}

export interface FeedEvents {
  /** Everything has to be read, and the changes after this position are told. */
  onReload(position: Position): void;
  onChanges(changes: Changes, position: Position): void;
  onHeard(): void;
  /** Contact is lost; another attempt follows by itself. */
  onLost(problem: Problem): void;
}

/** Browsers open few connections to a server: a page that nobody sees leaves this one to the others. */
const HIDDEN_MS = 5_000;

export class Feed {
  readonly #retrying: Retrying;

  constructor(
    readonly home: HomeTransport,
    readonly events: FeedEvents,
    readonly signal: AbortSignal,
    readonly world: ChatWorld,
  ) {
    this.#retrying = new Retrying(signal, world);
  }

  /** @param known - what was kept; `null` for nothing. Resolves when the signal aborts. */
  async run(known: Position | null): Promise<void> {
    let position = known;
    while (!this.signal.aborted) {
      await this.#seen();
      if (this.signal.aborted) return;
      const watching = new Watching(this.signal, this.world);
      let retryAfterS: number | undefined;
      try {
        position ??= await this.#begin(watching.signal);
        for await (const changes of watchChanges(
          this.home,
          { epoch: position.epoch, since: position.seen },
          watching.signal,
        )) {
          this.#retrying.good();
          const seen: number = changes.changes.at(-1)?.n ?? position.seen;
          position = { epoch: changes.epoch, seen };
          this.events.onHeard();
          if (changes.changes.length > 0) this.events.onChanges(changes, position);
        }
      } catch (error) {
        if (this.signal.aborted) return;
        if (watching.signal.aborted) continue;
        if (!(error instanceof ProblemError)) throw error;
        if (error instanceof RefusedError && error.problem.slug === "reload") position = null;
        else this.events.onLost(error.problem);
        retryAfterS = error.problem.retryAfterS;
      } finally {
        watching.close();
      }
      await this.#retrying.wait(retryAfterS);
    }
  }

  async #begin(signal: AbortSignal): Promise<Position> {
    const { epoch, newest } = await getHome(this.home, signal);
    const position = { epoch, seen: newest };
    this.events.onReload(position);
    return position;
  }

  /** Waits until somebody can see the page. */
  async #seen(): Promise<void> {
    if (this.world.isVisible()) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        if (!this.signal.aborted && !this.world.isVisible()) return;
        stop();
        this.signal.removeEventListener("abort", done);
        resolve();
      };
      const stop = this.world.onVisibility(done);
      this.signal.addEventListener("abort", done);
    });
  }
}

/** One connection: it ends with the feed, or when nobody has seen the page for a while. */
class Watching {
  readonly #controller = new AbortController();
  readonly #stop: () => void;
  #leaving: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly feed: AbortSignal,
    readonly world: ChatWorld,
  ) {
    feed.addEventListener("abort", this.#end);
    this.#stop = world.onVisibility(() => {
      clearTimeout(this.#leaving);
      if (!world.isVisible()) this.#leaving = setTimeout(this.#end, HIDDEN_MS);
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #end = (): void => this.#controller.abort();

  close(): void {
    clearTimeout(this.#leaving);
    this.#stop();
    this.feed.removeEventListener("abort", this.#end);
  }
}
