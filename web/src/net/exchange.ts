/**
 * One streamed exchange: a request whose response body survives a broken connection.
 *
 * The page names the exchange. When the body breaks off, it asks `GET /c2l/exchanges/{id}?offset=N` for the same bytes
 * from the N-th on, so the consumer sees one unbroken body. What cannot be had is reported as cut short, never dropped.
 */

import { type BackoffBounds, backoffMs, sleep } from "@/net/backoff";
import { REQUEST_FIELD } from "@/net/call";
import { isPassing, NO_CONTACT, type Problem, problemFrom } from "@/net/problem";
import { randomId } from "@/net/random-id";

export const EXCHANGE_FIELD = "c2l-exchange-id";

/** How long to try for more bytes after the last ones. The time a device sleeps is not counted. */
const REATTACH_BUDGET_MS = 60_000;
/** A bridge may take ten seconds to be woken; a little more than that for one attempt's response head. */
const REATTACH_HEAD_DEADLINE_MS = 15_000;
/** The home answered, and broke off without a byte, this often in a row: the rest will not come. */
const MOST_EMPTY_ATTACHMENTS = 4;
const REATTACH_BOUNDS: BackoffBounds = { firstMs: 250, mostMs: 4_000 };

export type Outcome =
  | { readonly kind: "complete" }
  | { readonly kind: "stopped" }
  /** Part of the answer may be there; the rest could not be had. */
  | { readonly kind: "cut-short"; readonly problem: Problem }
  /** Nothing was answered. */
  | { readonly kind: "failed"; readonly problem: Problem };

export interface ExchangeSink {
  /** Takes the next bytes of the body. Returns true once they hold the mark of a complete answer. */
  onBytes(bytes: Uint8Array): boolean;
  /** The connection broke (true), or is back (false). */
  onReattaching(reattaching: boolean): void;
}

/** What an exchange needs of the world; tests bring their own. */
export interface ExchangeWorld {
  readonly fetch: (path: string, init: RequestInit) => Promise<Response>;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly now: () => number;
  readonly random: () => number;
}

export const browserWorld: ExchangeWorld = {
  fetch: (path, init) => fetch(path, init),
  sleep,
  now: () => performance.now(),
  random: Math.random,
};

/** What one connection brought. */
type Attachment =
  | { readonly kind: "complete" | "ended" }
  /** `headed`: after a response had begun. */
  | { readonly kind: "broken"; readonly headed: boolean }
  | { readonly kind: "refused"; readonly problem: Problem };

export class Exchange {
  readonly id: string;
  #received = 0;
  #answered = false;

  constructor(
    readonly sink: ExchangeSink,
    readonly signal: AbortSignal,
    readonly world: ExchangeWorld = browserWorld,
    id: string = randomId(),
  ) {
    this.id = id;
  }

  /** Sends the request and follows its body to the end. Rejects only if the sink throws. */
  async run(path: string, body: unknown): Promise<Outcome> {
    const first = await this.#attach(path, {
      method: "POST",
      headers: { ...REQUEST_FIELD, "Content-Type": "application/json", [EXCHANGE_FIELD]: this.id },
      body: JSON.stringify(body),
      signal: this.signal,
    });
    if (this.signal.aborted) return { kind: "stopped" };
    if (first.kind === "complete") return { kind: "complete" };
    if (first.kind === "refused") return { kind: "failed", problem: first.problem };
    this.sink.onReattaching(true);
    const outcome = await this.#reattach();
    this.sink.onReattaching(false);
    if (!this.signal.aborted) return outcome;
    this.#stopAtHome();
    return { kind: "stopped" };
  }

  /** Without a connection whose closing would tell, a stop needs a request of its own. */
  #stopAtHome(): void {
    const init = { method: "DELETE", headers: REQUEST_FIELD, keepalive: true };
    this.world.fetch(`/c2l/exchanges/${this.id}`, init).catch(() => {
      // There is no way home; the bridge ends what nobody reads.
    });
  }

  async #reattach(): Promise<Outcome> {
    let spentMs = 0;
    let emptyAttachments = 0;
    let lastProblem: Problem = NO_CONTACT;
    for (let attempt = 0; spentMs < REATTACH_BUDGET_MS; attempt += 1) {
      const waitMs = backoffMs(attempt, REATTACH_BOUNDS, this.world.random());
      await this.world.sleep(waitMs, this.signal);
      if (this.signal.aborted) return { kind: "stopped" };
      const before = this.#received;
      const started = this.world.now();
      const result = await this.#attachAgain();
      if (this.signal.aborted) return { kind: "stopped" };
      if (result.kind === "complete") return { kind: "complete" };
      if (result.kind === "refused") {
        lastProblem = result.problem;
        if (!isPassing(result.problem)) return this.#given(result.problem);
      }
      if (this.#received > before) {
        spentMs = 0;
        emptyAttachments = 0;
        attempt = -1;
      } else if (result.kind === "ended") {
        return this.#given(ENDED_EARLY);
      } else {
        if (result.kind === "broken" && result.headed) emptyAttachments += 1;
        if (emptyAttachments === MOST_EMPTY_ATTACHMENTS) return this.#given(BROKEN_OFF);
        spentMs += waitMs + Math.min(this.world.now() - started, REATTACH_HEAD_DEADLINE_MS);
      }
    }
    return this.#given(lastProblem);
  }

  #given(problem: Problem): Outcome {
    if (this.#answered) return { kind: "cut-short", problem };
    return { kind: "failed", problem: problem.status === 404 ? NOT_SENT : problem };
  }

  async #attachAgain(): Promise<Attachment> {
    const head = new AbortController();
    const timer = setTimeout(() => head.abort(), REATTACH_HEAD_DEADLINE_MS);
    const stop = () => head.abort();
    this.signal.addEventListener("abort", stop);
    try {
      return await this.#attach(
        `/c2l/exchanges/${this.id}?offset=${this.#received}`,
        { headers: REQUEST_FIELD, signal: head.signal, cache: "no-store" },
        () => {
          clearTimeout(timer);
          this.sink.onReattaching(false);
        },
      );
    } finally {
      clearTimeout(timer);
      this.signal.removeEventListener("abort", stop);
      if (!this.signal.aborted) this.sink.onReattaching(true);
    }
  }

  async #attach(path: string, init: RequestInit, onHead?: () => void): Promise<Attachment> {
    let response: Response;
    try {
      response = await this.world.fetch(path, init);
    } catch {
      return { kind: "broken", headed: false };
    }
    if (!response.ok) {
      const text = await response.text().catch(() => "");
      return { kind: "refused", problem: problemFrom(response.status, text) };
    }
    this.#answered = true;
    onHead?.();
    return response.body === null ? { kind: "ended" } : this.#follow(response.body.getReader());
  }

  async #follow(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Attachment> {
    for (;;) {
      let chunk: ReadableStreamReadResult<Uint8Array>;
      try {
        chunk = await reader.read();
      } catch {
        return { kind: "broken", headed: true };
      }
      if (chunk.done) return { kind: "ended" };
      if (this.signal.aborted) return { kind: "broken", headed: true };
      this.#received += chunk.value.byteLength;
      if (this.sink.onBytes(chunk.value)) {
        void drain(reader);
        return { kind: "complete" };
      }
    }
  }
}

const ENDED_EARLY: Problem = {
  slug: null,
  title: "The answer ended early",
  detail: "It stopped without the mark that an answer is complete.",
  status: 0,
};

const BROKEN_OFF: Problem = {
  slug: null,
  title: "The answer was broken off at home",
  detail: "The connection is back, but nothing more comes of this answer.",
  status: 0,
};

/** The home never heard of this exchange. */
const NOT_SENT: Problem = {
  slug: null,
  title: "Your message did not arrive",
  detail: "The connection broke before the request reached your machine.",
  status: 404,
};

/** Lets the body end by itself: aborting it now would look like a stop to the engine. */
async function drain(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    while (!(await reader.read()).done);
  } catch {
    // The answer is complete already.
  }
}
