/** What this browser keeps of the list of API keys, and forgetting it. All else about keys is loaded with the settings. */
import { hasOwn, remove } from "@/store/storage";

export const KEPT_KEYS = "c2l.keys.v1";
let forgotten: () => void = () => undefined;

/** Has the loaded list told when it is to be forgotten. */
export function onForgotten(listener: () => void): void {
  forgotten = listener;
}

/** Removes another user's list. */
export function forgetOthersKeys(user: string | null): void {
  hasOwn(KEPT_KEYS, user);
}

/** Removes what this browser keeps. */
export function forgetKeys(): void {
  remove(KEPT_KEYS);
  forgotten();
}
