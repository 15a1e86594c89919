/** Signing out of this browser. */
import { clear } from "@/store/conversation";
import { forgetKeys } from "@/store/keys";
import { signOut } from "@/store/session";

/** @throws ProblemError - the server did not end the session. */
export async function leave(): Promise<void> {
  await signOut(() => {
    // What was said stays with whoever said it, not with the next person at this browser.
    clear();
    forgetKeys();
  });
}
