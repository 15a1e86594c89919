/**
 * The page's half of a session with the home that serves it: the cookie alone would go to every port of this computer,
 * where another user's program may listen. It is kept for this very address, and is good only until the bridge ends.
 */
import { REQUEST_FIELD } from "@/net/call";
import { text } from "@/net/decode";
import { isServedByHome } from "@/net/home/served";
import { load, remove, save } from "@/store/storage";

const KEY = "c2l.page-key.v1";

/** Sends what is kept from now on. Call once, before anything is asked. */
export function takeUpPageKey(): void {
  const key = isServedByHome() ? load(KEY, text) : null;
  if (key !== null) REQUEST_FIELD["C2L-Request"] = key;
}

export function keepPageKey(key: string): void {
  if (!isServedByHome()) return;
  REQUEST_FIELD["C2L-Request"] = key;
  save(KEY, key);
}

export function forgetPageKey(): void {
  if (!isServedByHome()) return;
  REQUEST_FIELD["C2L-Request"] = "1";
  remove(KEY);
}
