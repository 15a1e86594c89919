/** The typed client of the server's own routes. Every call carries the field that a foreign site cannot send. */
import { fields, instantOrNull, list, text, textOr } from "@/net/decode";
import { NO_CONTACT, ProblemError, problemFrom } from "@/net/problem";

/** Required on every request that a session cookie authenticates (against cross-site forgery). */
export const REQUEST_FIELD = { "C2L-Request": "1" } as const;

/** The bridge may need ten seconds to be woken before the first byte. */
const CALL_DEADLINE_MS = 20_000;

export interface Session {
  readonly signedIn: boolean;
  readonly user: string | null;
  /** Milliseconds since 1970. */
  readonly expires: number | null;
}

/** @throws ProblemError - the server refused, or did not answer. */
async function call(method: "GET" | "POST", path: string, body?: unknown): Promise<Response> {
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
  if (!response.ok)
    throw new ProblemError(problemFrom(response.status, await response.text().catch(() => "")));
  return response;
}

/** Reads a JSON body. @throws ProblemError - it is not what was expected. */
async function read<T>(response: Response, decode: (value: unknown) => T): Promise<T> {
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

export function decodeSession(value: unknown): Session {
  const document = fields(value);
  return {
    signedIn: document["signed_in"] === true,
    user: textOr(document["user"], null),
    expires: instantOrNull(document["expires"]),
  };
}

export function decodeModels(value: unknown): string[] {
  const ids = list(fields(value)["data"]).map((entry) => text(fields(entry)["id"]));
  return [...new Set(ids)];
}

export async function getSession(): Promise<Session> {
  return read(await call("GET", "/api/auth/session"), decodeSession);
}

export async function postSignIn(token: string): Promise<void> {
  await call("POST", "/api/auth/sign-in", { token });
}

export async function postSignOut(): Promise<void> {
  await call("POST", "/api/auth/sign-out");
}

export async function getModels(): Promise<string[]> {
  return read(await call("GET", "/v1/models"), decodeModels);
}
