/** One call to the server's own routes: with the field that a foreign site cannot send, a deadline, and problems told. */
import { NO_CONTACT, ProblemError, problemFrom } from "@/net/problem";

/**
 * Required on every request that a session cookie authenticates (against cross-site forgery). What it says matters only
 * to a home that serves this page itself: there it is the half of the session that no other page has.
 */
export const REQUEST_FIELD: { "C2L-Request": string } = { "C2L-Request": "1" };

/** The bridge may need ten seconds to be woken before the first byte. */
const CALL_DEADLINE_MS = 20_000;
/** Nobody is told to wait longer than an hour, whatever the server says. */
const MOST_RETRY_AFTER_S = 3_600;

export type Method = "GET" | "POST" | "PATCH" | "DELETE";

/** @throws ProblemError - the server refused, or did not answer. */
export async function call(method: Method, path: string, body?: unknown): Promise<Response> {
  const init: RequestInit = {
    method,
    headers: body === undefined ? REQUEST_FIELD : { ...REQUEST_FIELD, "Content-Type": "application/json" },
    signal: AbortSignal.timeout(CALL_DEADLINE_MS),
    cache: "no-store",
  };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ProblemError(NO_CONTACT);
  }
  if (response.ok) return response;
  const problem = problemFrom(response.status, await response.text().catch(() => ""));
  const retryAfterS = retryAfterOf(response.headers.get("retry-after"));
  throw new ProblemError(retryAfterS === null ? problem : { ...problem, retryAfterS });
}

/** Reads a JSON body. @throws ProblemError - it is not what was expected. */
export async function read<T>(response: Response, decode: (value: unknown) => T): Promise<T> {
  try {
    return decode(await response.json());
  } catch (error) {
    const detail = error instanceof Error ? `${error.message}.` : "It could not be read.";
    throw new ProblemError({
      slug: null,
      title: "The server's answer was not understood",
      detail,
      status: response.status,
    });
  }
}

/** Reads a `Retry-After` in seconds, at least 1; `null` if there is none. Our server sends no dates. */
export function retryAfterOf(field: string | null): number | null {
  if (field === null || !/^\d{1,9}$/.test(field)) return null;
  return Math.min(Math.max(Number(field), 1), MOST_RETRY_AFTER_S);
}

/** One segment of a path: an id never reaches another route. */
export function segment(id: string): string {
  // "." and ".." are not escaped, and would be resolved by the browser.
  return encodeURIComponent(id).replace(/^\.+$/, "_");
}
