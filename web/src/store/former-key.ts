/** Where earlier versions of this page kept their one conversation. */
import { hasOwn, remove } from "@/store/storage";

export const FORMER_KEY = "c2l.conversation.v1";

/** Whether there is one of this user's; another user's is removed. */
export function hasFormer(user: string | null): boolean {
  return hasOwn(FORMER_KEY, user);
}

export function forgetFormer(): void {
  remove(FORMER_KEY);
}
