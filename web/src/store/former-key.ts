/** Where earlier versions of this page kept their one conversation. */
import { fields, textOr } from "@/net/decode";
import { load, remove } from "@/store/storage";

export const FORMER_KEY = "c2l.conversation.v1";

/** Whether there is one of this user's; another user's is removed. */
export function hasFormer(user: string | null): boolean {
  const owner = load(FORMER_KEY, (value) => ({ user: textOr(fields(value)["user"], null) }));
  if (owner === null || owner.user === user) return owner !== null;
  remove(FORMER_KEY);
  return false;
}

export function forgetFormer(): void {
  remove(FORMER_KEY);
}
