/**
 * One bounded, reconnecting stream of JSON events.
 *
 * Read with fetch, not EventSource: that hides the server's keep-alive comments, so a dead link would go unnoticed for
 * minutes, and the status of a refusal, so "signed out" would look like "no network".
 */

import { backoffMs, sleep } from "@/net/backoff";
import { REQUEST_FIELD } from "@/net/call";
import { SseParser } from "@/net/sse";

const BOUNDS = { firstMs: 500, mostMs: 15_000 } as const;
/** The server says something at least every ten seconds. */
const SILENCE_MS = 15_000;

export interface EventStreamListener {
  /** A document arrived; the stream is alive. */
  onDocument(value: unknown): void;
  /**
   * Contact is lost; another attempt follows by itself.
   *
   * @param status - of the refusal; 0 if the stream was cut or there was no response.
   */
  onLost(status: number): void;
}

export class EventStream {
  readonly #closing = new AbortController();
  #waking = new AbortController();
  #attempt = 0;

  constructor(
    readonly url: string,
    readonly listener: EventStreamListener,
  ) {
    window.addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
    void this.#live();
  }

  close(): void {
    this.#closing.abort();
    this.#waking.abort();
    window.removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
  }

  async #live(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      const status = await this.#follow();
      if (this.#closing.signal.aborted) return;
      this.listener.onLost(status);
      await sleep(backoffMs(this.#attempt, BOUNDS, Math.random()), this.#waking.signal);
      this.#waking = new AbortController();
      this.#attempt += 1;
    }
  }

  /** Follows one connection to its end. Returns the status of a refusal, else 0. */
  async #follow(): Promise<number> {
    const connection = new AbortController();
    const hangUp = () => connection.abort();
    let silence = setTimeout(hangUp, SILENCE_MS);
    this.#closing.signal.addEventListener("abort", hangUp);
    try {
      const init: RequestInit = { headers: REQUEST_FIELD, signal: connection.signal, cache: "no-store" };
      const response = await fetch(this.url, init);
      if (!response.ok || response.body === null) return response.status;
      const reader = response.body.getReader();
      const parser = new SseParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.#closing.signal.aborted) return 0;
        clearTimeout(silence);
        silence = setTimeout(hangUp, SILENCE_MS);
        for (const event of parser.push(value)) this.#take(event.data);
      }
    } catch {
      return 0;
    } finally {
      clearTimeout(silence);
      this.#closing.signal.removeEventListener("abort", hangUp);
      hangUp();
    }
  }

  #take(data: string): void {
    this.#attempt = 0;
    let value: unknown;
    try {
      value = JSON.parse(data);
    } catch {
      return;
    }
    this.listener.onDocument(value);
  }

  /** The network is back or somebody looks at the page: do not sit out a long wait. */
  readonly #hurry = (): void => {
    if (document.visibilityState !== "visible") return;
    this.#attempt = 0;
    this.#waking.abort();
  };
}
