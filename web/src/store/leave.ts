/** Signing out of this browser. */
import { forgetChats } from "@/store/conversation";
import { forgetDrafts } from "@/store/drafts";
import { forgetFormer } from "@/store/former-key";
import { forgetKeys } from "@/store/kept-keys";
import { forgetModels } from "@/store/models";
import { forgetPriority } from "@/store/priority";
import { signOut } from "@/store/session";

/** @throws ProblemError - the server did not end the session. */
export async function leave(): Promise<void> {
  await signOut(async () => {
    // What was said stays with whoever said it, not with the next person at this browser.
    forgetDrafts();
    forgetFormer();
    forgetModels();
    forgetPriority();
    forgetKeys();
    await forgetChats();
  });
}
