/** The browser's storage: read with a check, written best effort (it may be full, or switched off). */
import { fields, textOr } from "@/net/decode";

/** Returns what is stored, or `null` if there is nothing or it does not pass `decode`; a bad entry is removed. */
export function load<T>(key: string, decode: (value: unknown) => T): T | null {
  try {
    const stored = localStorage.getItem(key);
    return stored === null ? null : decode(JSON.parse(stored));
  } catch {
    remove(key);
    return null;
  }
}

/** Whether there is an entry that names this user; one that names another is removed. */
export function hasOwn(key: string, user: string | null): boolean {
  const entry = load(key, (value) => ({ user: textOr(fields(value)["user"], null) }));
  if (entry === null || entry.user === user) return entry !== null;
  remove(key);
  return false;
}

export function save(key: string, value: unknown): void {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Full or forbidden: the page works without, it only forgets on reload.
  }
}

export function remove(key: string): void {
  try {
    localStorage.removeItem(key);
  } catch {
    // Storage is switched off: there is nothing to remove.
  }
}
