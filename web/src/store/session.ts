/** Who is signed in, and signing in by a link. */
import { create } from "zustand";
import { getSession, postSignIn, postSignOut } from "@/net/api";
import { ProblemError } from "@/net/problem";

const SIGN_IN_PATH = "/sign-in";

export type SessionState =
  | { readonly kind: "checking" | "signing-in" | "unreachable" }
  /** `linkRefused`: a sign-in link was tried and did not work. */
  | { readonly kind: "signed-out"; readonly linkRefused: boolean }
  | { readonly kind: "signed-in"; readonly user: string | null };

export const useSession = create<SessionState>(() => ({ kind: "checking" }));

function become(state: SessionState): void {
  useSession.setState(state, true);
}

/** Signs in if the address is a sign-in link, else asks who is signed in. Call once, when the page starts. */
export async function startSession(): Promise<void> {
  const token = takeLinkToken();
  if (token === null) {
    await checkSession();
    return;
  }
  become({ kind: "signing-in" });
  let refused = false;
  try {
    await postSignIn(token);
  } catch (error) {
    if (!(error instanceof ProblemError) || error.problem.status === 0) {
      become({ kind: "unreachable" });
      return;
    }
    refused = true;
  }
  // A link works once; whoever opens it again may well be signed in already.
  await checkSession(refused);
}

/** Takes the token out of `/sign-in#token=…`, and out of the address bar and the history. */
function takeLinkToken(): string | null {
  if (location.pathname !== SIGN_IN_PATH) return null;
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  history.replaceState(null, "", "/");
  return token === "" ? null : token;
}

export async function checkSession(linkRefused = false): Promise<void> {
  try {
    const session = await getSession();
    become(
      session.signedIn ? { kind: "signed-in", user: session.user } : { kind: "signed-out", linkRefused },
    );
  } catch (error) {
    const refused = error instanceof ProblemError && error.problem.status === 401;
    if (refused) become({ kind: "signed-out", linkRefused });
    else if (useSession.getState().kind !== "signed-in") become({ kind: "unreachable" });
  }
}

/** @throws ProblemError - the server did not end the session; it is still valid. */
export async function signOut(): Promise<void> {
  await postSignOut();
  become({ kind: "signed-out", linkRefused: false });
}
