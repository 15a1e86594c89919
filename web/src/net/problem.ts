/** Failures as people see them: RFC 9457 problem documents from the server, and what the browser itself reports. */
import { fields, numberOr, textOr } from "@/net/decode";

const TYPE_PREFIX = "urn:c2l:problem:";
/** Begins the types that others know too (RFC 9457 §4.2). */
const REGISTRY = "https://iana.org/assignments/http-problem-types#";
/** A gateway does not hold the key that a request was sealed to (RFC 9458 §5.2), or the pairing that it named. */
export const OHTTP_KEY = "ohttp-key";
/** What was asked cannot be read. */
export const BAD_REQUEST = "bad-request";

export interface Problem {
  /** What follows `urn:c2l:problem:` in the type, or IANA's registry; `null` if the document is not one of these. */
  readonly slug: string | null;
  readonly title: string;
  readonly detail: string;
  /** The HTTP status; 0 if there was no response. */
  readonly status: number;
  /** Seconds after which the server takes the next attempt, if it said so. */
  readonly retryAfterS?: number;
}

export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
    this.name = "ProblemError";
  }
}

export const NO_CONTACT: Problem = {
  slug: null,
  title: "The server does not answer",
  detail: "Check this device's network connection, and that the server is running.",
  status: 0,
};

/** Reads a problem document; anything else becomes a problem that names the status. */
export function problemFrom(status: number, body: string): Problem {
  try {
    const document = fields(JSON.parse(body) as unknown);
    const type = textOr(document["type"], "");
    const error = messageOf(document["error"]);
    return {
      slug: slugOf(type),
      title: textOr(document["title"], "The server refused the request"),
      detail: textOr(document["detail"], error ?? `It answered with status ${status}.`),
      status: numberOr(document["status"], status),
    };
  } catch {
    return {
      slug: null,
      title: "Something between this page and your model failed",
      detail: `The answer had status ${status} and no explanation.`,
      status,
    };
  }
}

function slugOf(type: string): string | null {
  const prefix = [TYPE_PREFIX, REGISTRY].find((known) => type.startsWith(known));
  return prefix === undefined ? null : type.slice(prefix.length);
}

function messageOf(error: unknown): string | null {
  if (typeof error === "string") return error;
  if (typeof error !== "object" || error === null || !("message" in error)) return null;
  return textOr(error.message, null);
}

/** Passing troubles of the way home; all other problems would be the same a second later. */
const PASSING_SLUGS = new Set([
  "bridge-offline",
  "connection-lost",
  "overloaded",
  "rate-limited",
  "timed-out",
]);
const PASSING_STATUSES = new Set([429, 500, 502, 503, 504]);

export function isPassing(problem: Problem): boolean {
  return problem.slug === null ? PASSING_STATUSES.has(problem.status) : PASSING_SLUGS.has(problem.slug);
}
