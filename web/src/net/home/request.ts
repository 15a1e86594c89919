/** One request to the home API, as the generated client makes it; refusals become errors, answers typed values. */
import { DecodeError } from "@/net/decode";
import { contentOf, OUT_OF_TIME, refusalOf } from "@/net/home/problems";
import type { Reader } from "@/net/home/shapes";
import { type HomeResponse, type HomeTransport, sendingMs } from "@/net/home/transport";
import { LineTooLongError } from "@/net/lines";
import { NdjsonParser } from "@/net/ndjson";
import { type Problem, ProblemError, problemFrom } from "@/net/problem";

/** Until an answer begins, once all is sent: a machine that sleeps may have to be woken. */
const HEAD_MS = 25_000;
/** Bytes of an answer: more than any conversation that a page could show. */
const MOST_ANSWER = 256 * 1024 * 1024;

export interface Sent {
  readonly query?: Readonly<Record<string, string | number | null | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly content?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
}

/** The home itself refused: asking the same again would be refused as well, unless `isPassing`. */
export class RefusedError extends ProblemError {
  constructor(problem: Problem) {
    super(problem);
    this.name = "RefusedError";
  }
}

/** @throws RefusedError, ProblemError - the home was not reached; or what the signal aborted with. */
export async function askJson<T>(
  home: HomeTransport,
  method: string,
  path: string,
  read: Reader<T>,
  sent: Sent,
): Promise<T> {
  const content = await whole(home, method, path, sent);
  return understood(() => read(JSON.parse(new TextDecoder().decode(content))));
}

/** Throws as `askJson`. */
export async function askNothing(
  home: HomeTransport,
  method: string,
  path: string,
  sent: Sent,
): Promise<void> {
  await whole(home, method, path, sent);
}

/** Throws as `askJson`. */
export async function askBytes(
  home: HomeTransport,
  method: string,
  path: string,
  sent: Sent,
): Promise<Uint8Array<ArrayBuffer>> {
  return await whole(home, method, path, sent);
}

/** Yields the events of one connection; whoever leaves early detaches. Throws as `askJson`, also when it breaks. */
export async function* askEvents<T>(
  home: HomeTransport,
  method: string,
  path: string,
  read: Reader<T>,
  sent: Sent,
): AsyncGenerator<T> {
  const line = new Line(sent.signal);
  try {
    const response = await begun(home, method, path, sent, line);
    const reader = response.content.getReader();
    const parser = new NdjsonParser();
    for (;;) {
      const { done, value } = await reader.read();
      for (const event of understood(() => (done ? parser.end() : parser.push(value)))) {
        const problem = problemIn(event);
        if (problem !== null) throw new RefusedError(problem);
        yield understood(() => read(event));
      }
      if (done) return;
    }
  } finally {
    line.leave();
  }
}

async function whole(
  home: HomeTransport,
  method: string,
  path: string,
  sent: Sent,
): Promise<Uint8Array<ArrayBuffer>> {
  const line = new Line(sent.signal);
  try {
    return await contentOf(await begun(home, method, path, sent, line), MOST_ANSWER);
  } finally {
    line.leave();
  }
}

/** What ends a request: whoever asks, or that the answer does not begin. */
class Line {
  readonly #controller = new AbortController();
  readonly #asker: AbortSignal | undefined;

  constructor(asker: AbortSignal | undefined) {
    this.#asker = asker;
    if (asker?.aborted) this.#end();
    else asker?.addEventListener("abort", this.#end);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #end = (): void => this.#controller.abort(this.#asker?.reason);

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  leave(): void {
    this.#asker?.removeEventListener("abort", this.#end);
    this.#controller.abort();
  }
}

async function begun(
  home: HomeTransport,
  method: string,
  path: string,
  sent: Sent,
  line: Line,
): Promise<HomeResponse> {
  const { body, query } = sent;
  const content = body === undefined ? sent.content : new TextEncoder().encode(JSON.stringify(body));
  const type = body === undefined ? "application/octet-stream" : "application/json";
  const written = content === undefined ? {} : { content, headers: { "content-type": type } };
  const timer = setTimeout(() => line.abort(new ProblemError(OUT_OF_TIME)), HEAD_MS + sendingMs(written));
  try {
    const target = `/c2l${path}${queryOf(query)}`;
    const response = await home.fetch({ method, path: target, ...written }, line.signal);
    const refusal = await refusalOf(response);
    if (refusal !== null) throw new RefusedError(refusal);
    return response;
  } finally {
    clearTimeout(timer);
  }
}

function queryOf(query: Sent["query"]): string {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
  if (given.length === 0) return "";
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}

/** The last event of a stream that went wrong. */
function problemIn(event: unknown): Problem | null {
  if (typeof event !== "object" || event === null || !("problem" in event)) return null;
  return problemFrom(500, JSON.stringify(event.problem));
}

function understood<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof LineTooLongError || error instanceof DecodeError))
      throw error;
    const title = "Your machine's answer was not understood";
    throw new ProblemError({ slug: null, title, detail: `${error.message}.`, status: 200 });
  }
}
