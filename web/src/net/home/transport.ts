/**
 * How the page talks with a home: one request, one answer that streams. Nothing here knows how it travels: sealed
 * through the cloud (`sealed.ts`), or straight to a bridge that serves this page on loopback (`direct.ts`).
 */
import { toBase64Url } from "@/protocol/sealed/bytes";

export interface HomeRequest {
  readonly method: string;
  /** Path and query, as on the plain path: `/v1/…`, `/ollama/api/…`, `/anthropic/v1/messages`, `/c2l/…`. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly content?: Uint8Array;
  /**
   * Name of the answer, from `newExchange`. With it a broken answer is taken up again where it broke off, and asking
   * again with the same name starts nothing twice. Without it a break ends the answer, so leave it out for what
   * counts its own offset (`/c2l/runs/…/events`, `/c2l/changes/events`) and for what is short.
   */
  readonly exchange?: string;
  /** Told true when the connection of an answer broke and is tried again, false when the answer goes on. */
  readonly onReattaching?: (reattaching: boolean) => void;
}

/** What a slow phone's network sends: 0.5 Mbit/s, in bytes a second. */
const SENT_BYTES_A_SECOND = 64 * 1024;

/** Returns the milliseconds that sending a request's content may take, besides its answer. */
export function sendingMs({ content }: Pick<HomeRequest, "content">): number {
  return (1000 * (content?.length ?? 0)) / SENT_BYTES_A_SECOND;
}

export interface HomeResponse {
  /** As the home answered, a refusal's too: its content is a problem document then (`refusalOf`). */
  readonly status: number;
  readonly headers: Headers;
  /**
   * The content, once: without gaps, repetitions and padding, over however many connections. It fails with a
   * `ProblemError` if the rest cannot be had, and as the signal does when that aborts. It is read from the network no
   * faster than from here.
   */
  readonly content: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** True only when the home's mark of the end came; false for whatever else ended it. Never rejects. */
  readonly whole: Promise<boolean>;
}

export interface HomeTransport {
  /**
   * Asks the home.
   *
   * @param signal - Aborting detaches: what was begun at home goes on there. To stop it, say so:
   *   `DELETE /c2l/exchanges/{exchange}`, or `POST /c2l/runs/{id}/stop` for a run.
   * @throws ProblemError - the home was not reached, or what came is not its answer. An answer of the home is none,
   *   whatever its status, but for one: that it does not know this device (`device-unknown`).
   * @throws what the signal aborted with.
   */
  fetch(request: HomeRequest, signal: AbortSignal): Promise<HomeResponse>;
}

/** Returns a name for an answer: base64url of 16 random bytes. */
export function newExchange(): string {
  return toBase64Url(crypto.getRandomValues(new Uint8Array(16)));
}
