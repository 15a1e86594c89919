/** A shelf for what this browser saw of conversations, in IndexedDB. Best effort: without it the page only forgets. */
import { Database, resultOf } from "@/store/database";

/** Whose, of which home, what: ["user", "device", "talk", "id"]. */
export type Key = readonly string[];

/** What the cache needs of a database; tests bring their own. Whatever it gives is checked by its reader. */
export interface ChatShelf {
  get(key: Key): Promise<unknown>;
  put(records: readonly (readonly [key: Key, record: unknown])[], removed?: readonly Key[]): Promise<void>;
  /** Removes every record of which the key does not pass. */
  keepOnly(passes: (key: Key) => boolean): Promise<void>;
}

/** One that lasts as long as the page. */
export class PassingChatShelf implements ChatShelf {
  readonly #records = new Map<string, unknown>();

  async get(key: Key): Promise<unknown> {
    return this.#records.get(JSON.stringify(key));
  }

  async put(records: readonly (readonly [Key, unknown])[], removed: readonly Key[] = []): Promise<void> {
    for (const key of removed) this.#records.delete(JSON.stringify(key));
    for (const [key, record] of records) this.#records.set(JSON.stringify(key), structuredClone(record));
  }

  async keepOnly(passes: (key: Key) => boolean): Promise<void> {
    for (const key of [...this.#records.keys()]) {
      const parts: unknown = JSON.parse(key);
      if (!Array.isArray(parts) || !passes(parts.map(String))) this.#records.delete(key);
    }
  }
}

export class BrowserChatShelf implements ChatShelf {
  readonly #database = new Database("c2l-chats", "seen");

  async get(key: Key): Promise<unknown> {
    return await this.#database.run("readonly", (store) => resultOf<unknown>(store.get([...key])));
  }

  async put(records: readonly (readonly [Key, unknown])[], removed: readonly Key[] = []): Promise<void> {
    await this.#database.run("readwrite", async (store) => {
      for (const key of removed) store.delete([...key]);
      for (const [key, record] of records) store.put(record, [...key]);
    });
  }

  async keepOnly(passes: (key: Key) => boolean): Promise<void> {
    await this.#database.run("readwrite", async (store) => {
      for (const key of await resultOf(store.getAllKeys())) {
        if (!Array.isArray(key) || !passes(key.map(String))) store.delete(key);
      }
    });
  }
}
