/** One short call to a home: with a deadline, and refusals told as problems. */
import { accepted, contentOf, OUT_OF_TIME } from "@/net/home/problems";
import type { HomeTransport } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";

/** A machine that sleeps may have to be woken. */
const DEADLINE_MS = 25_000;
/** Bytes of an answer that is not streamed. */
const MOST_ANSWER = 4 * 1024 * 1024;

/** @throws ProblemError - the home refused, or was not reached. */
export async function callHome<T>(
  transport: HomeTransport,
  method: string,
  path: string,
  decode: (value: unknown) => T,
  body?: unknown,
): Promise<T> {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const sent =
    body === undefined
      ? {}
      : {
          headers: { "content-type": "application/json" },
          content: new TextEncoder().encode(JSON.stringify(body)),
        };
  try {
    const response = await accepted(await transport.fetch({ method, path: `/c2l${path}`, ...sent }, signal));
    const text = new TextDecoder().decode(await contentOf(response, MOST_ANSWER));
    return understood(text, decode, response.status);
  } catch (error) {
    if (signal.aborted && error === signal.reason) throw new ProblemError(OUT_OF_TIME);
    throw error;
  }
}

function understood<T>(text: string, decode: (value: unknown) => T, status: number): T {
  try {
    return decode(text === "" ? null : JSON.parse(text));
  } catch (error) {
    const detail = error instanceof Error ? `${error.message}.` : "It could not be read.";
    throw new ProblemError({ slug: null, title: "Your machine's answer was not understood", detail, status });
  }
}

export function nothing(): null {
  return null;
}
