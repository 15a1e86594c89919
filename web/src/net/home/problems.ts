/** What can go wrong on the sealed way home, in words. The slugs that begin with `home-` are this page's own. */
import type { HomeResponse } from "@/net/home/transport";
import { type Problem, problemFrom } from "@/net/problem";
import type { SealedError } from "@/protocol/sealed/errors";

/** Who answers is not who was paired with. */
export const OTHER_IDENTITY = "home-other-identity";
export const DEVICE_UNKNOWN = "device-unknown";
/** Bytes of a problem document that are read; ours have a few hundred. */
export const MOST_PROBLEM = 64 * 1024;

function problem(slug: string, title: string, detail: string): Problem {
  return { slug, title, detail, status: 0 };
}

const CLOCK = problem(
  "home-clock",
  "The clocks differ too much",
  "Set this device's clock to the right time, and look at your machine's: more than two minutes apart, neither can tell a new message from an old one.",
);
const IDENTITY = problem(
  OTHER_IDENTITY,
  "Your machine shows another identity",
  "Nothing was sent. If you gave the machine a new identity yourself, pair this browser anew by a link from the machine. If not, somebody between may be pretending to be it.",
);
const UNTRUSTED = problem(
  "home-untrusted",
  "These keys are not your machine's",
  "Nothing was sent: what came as your machine's keys is not signed by it. Try again; if it stays so, the server is not to be trusted.",
);
const OLD_KEYS = problem(
  "home-old-keys",
  "The server hands out old keys",
  "Nothing was sent: your machine has newer keys than these, as this browser has seen. If it stays so, the server is not to be trusted.",
);
const ALTERED = problem(
  "home-altered",
  "The answer was altered on its way",
  "What is shown came from your machine as it is; what came after it did not, and was thrown away.",
);
export const NOT_SEALED: Problem = {
  slug: null,
  title: "Something between this page and your machine answered",
  detail: "What came is no sealed answer. On a network that wants a sign-in of its own, do that first.",
  status: 502,
};
export const OUT_OF_TIME: Problem = {
  slug: "timed-out",
  title: "Your machine does not answer",
  detail: "No answer came in time.",
  status: 504,
};
export const BROKEN_CONNECTION: Problem = {
  slug: null,
  title: "The connection broke",
  detail: "The answer did not arrive whole.",
  status: 0,
};
export const BROKEN_OFF = problem(
  "home-broken-off",
  "The answer was broken off at home",
  "The connection is back, but nothing more comes of this answer.",
);
export const NO_CONTINUATION = problem(
  "home-no-continuation",
  "The rest of the answer cannot be had",
  "Your machine answered with something else than the rest.",
);
export const OLD_BROWSER = problem(
  "home-old-browser",
  "This browser cannot seal messages",
  "It is too old for the cryptography that keeps the server from reading along. Chromium or Chrome 137, Firefox 130, Safari 17 or newer can.",
);
export const INSECURE_PAGE = problem(
  "home-insecure-page",
  "This address is not secure enough",
  "Browsers keep keys only for pages at https:// addresses, and on this very computer at http://localhost. Open the page at such an address.",
);

/** What a statement of keys that does not hold means. */
export function statementProblem(error: SealedError, otherIdentity: boolean): Problem {
  switch (error.code) {
    case "untrusted":
      return otherIdentity ? IDENTITY : UNTRUSTED;
    case "expired":
      return CLOCK;
    case "rollback":
      return OLD_KEYS;
    default:
      return NOT_SEALED;
  }
}

/** What an answer that does not open means: `null` if it only was cut short. */
export function answerProblem(error: SealedError): Problem | null {
  return error.code === "truncated" ? null : ALTERED;
}

/** Returns why sealing cannot work in this browser at this address; `null` if it can. */
export async function whyNoSealing(): Promise<Problem | null> {
  if (!globalThis.isSecureContext || globalThis.crypto?.subtle === undefined) return INSECURE_PAGE;
  try {
    await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    return null;
  } catch {
    return OLD_BROWSER;
  }
}

/** Reads what a home refused with; `null` if it did not refuse. Takes the content if it did. */
export async function refusalOf(response: HomeResponse): Promise<Problem | null> {
  if (response.status < 400) return null;
  return problemFrom(response.status, new TextDecoder().decode(await contentOf(response, MOST_PROBLEM)));
}

/**
 * Returns the whole content of an answer.
 *
 * @param most - bytes; a longer content is cut there.
 * @throws ProblemError - the rest could not be had.
 */
export async function contentOf(response: HomeResponse, most = Infinity): Promise<Uint8Array<ArrayBuffer>> {
  const reader = response.content.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    if (size >= most) {
      await reader.cancel();
      break;
    }
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all.slice(0, Math.min(size, most));
}
