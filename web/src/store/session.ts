/** Who is signed in, and signing in by a link. */
import { create } from "zustand";
import { getSession, type Provider, postSignIn, postSignOut, type Session } from "@/net/api";
import { sleep } from "@/net/backoff";
import { isProviderAddress } from "@/net/loopback";
import { ProblemError } from "@/net/problem";
import { untilAnswered } from "@/net/until-answered";
import { navigate, usePlace } from "@/store/location";
import { forgetPageKey, keepPageKey, takeUpPageKey } from "@/store/page-key";

/** How one may sign in here. */
export interface Ways {
  readonly providers: readonly Provider[];
  readonly byLink: boolean;
}

export interface SignedIn {
  readonly kind: "signed-in";
  /** A pseudonym. */
  readonly user: string | null;
  readonly name: string | null;
  readonly email: string | null;
  readonly admin: boolean;
  /** Milliseconds since 1970. */
  readonly expires: number | null;
}

export type SessionState =
  | { readonly kind: "checking" | "signing-in" | "unreachable" }
  /** `linkRefused`: a sign-in link was tried and did not work. */
  | { readonly kind: "signed-out"; readonly linkRefused: boolean; readonly ways: Ways }
  | SignedIn;

/** The browser removes what it keeps within so many milliseconds, or will not at all. */
const FORGET_MS = 3_000;

export const useSession = create<SessionState>(() => ({ kind: "checking" }));

function become(state: SessionState): void {
  useSession.setState(state, true);
}

/** Signs in if the address is a sign-in link, else asks who is signed in. Call once, when the page starts. */
export async function startSession(): Promise<void> {
  takeUpPageKey();
  const token = takeLinkToken();
  if (token === null) {
    await checkSession();
    return;
  }
  become({ kind: "signing-in" });
  let refused = false;
  try {
    const key = await untilAnswered(() => postSignIn(token), isRefusal, showUnreachable);
    if (key !== null) keepPageKey(key);
  } catch {
    refused = true;
  }
  // A link works once; whoever opens it again may well be signed in already.
  await checkSession(refused);
}

/** Takes the token out of `/sign-in#token=…`, and out of the address bar and the history. */
function takeLinkToken(): string | null {
  const { route } = usePlace.getState();
  if (route.page !== "sign-in") return null;
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return null;
  navigate(route.returnTo, "replace");
  return token === "" ? null : token;
}

export async function checkSession(linkRefused = false): Promise<void> {
  // Whoever is signed in is not disturbed by a server that is away.
  const once = useSession.getState().kind === "signed-in";
  try {
    const session = await untilAnswered(getSession, (status) => once || status === 401, showUnreachable);
    if (session.signedIn) welcome(session);
    else {
      const { providers, byLink } = session;
      become({ kind: "signed-out", linkRefused, ways: { providers, byLink } });
    }
  } catch (error) {
    const refused = error instanceof ProblemError && error.problem.status === 401;
    if (refused) become({ kind: "signed-out", linkRefused, ways: { providers: [], byLink: true } });
  }
}

function showUnreachable(): void {
  become({ kind: "unreachable" });
}

/** A server that is starting or has too much to do refuses nobody. */
function isRefusal(status: number): boolean {
  return status >= 400 && status < 500 && status !== 429;
}

function welcome({ user, name, email, admin, expires }: Session): void {
  const { route } = usePlace.getState();
  // Whoever is signed in has nothing to do on the sign-in page, unless it says why another attempt failed.
  if (route.page === "sign-in" && route.error === null) navigate(route.returnTo, "replace");
  become({ kind: "signed-in", user, name, email, admin, expires });
}

/**
 * Ends the session, then what the browser keeps of it, then shows how to sign in again.
 *
 * @throws ProblemError - the server did not end the session; it is still valid, and nothing is forgotten.
 */
export async function signOut(forget: () => Promise<void>): Promise<void> {
  let redirect: string | null = null;
  try {
    redirect = await postSignOut();
  } catch (error) {
    // It had ended already.
    if (!(error instanceof ProblemError && error.problem.status === 401)) throw error;
  }
  // Leaving for the provider would break it off.
  await Promise.race([forget(), sleep(FORGET_MS)]);
  forgetPageKey();
  become({ kind: "checking" });
  // The address of whoever signs in next says nothing of where this one was.
  navigate("/", "replace");
  if (redirect !== null && isProviderAddress(redirect)) location.assign(redirect);
  else await checkSession();
}
