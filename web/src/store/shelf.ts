/** A shelf of records in IndexedDB, which unlike the other storage can keep keys that no script can read. */
import { Database, resultOf } from "@/store/database";

/** What the identity store needs of a database; tests bring their own. Whatever it gives is checked by its reader. */
export interface Shelf {
  /** Everything, with its key. */
  all(): Promise<readonly (readonly [key: string, record: unknown])[]>;
  put(key: string, record: unknown): Promise<void>;
  /** Replaces a record by what is made of it, with nothing between; `undefined` leaves it as it is. */
  change(key: string, change: (record: unknown) => unknown): Promise<void>;
  /** Removes records, and puts others in their place, together or not at all. */
  replace(
    removed: readonly string[],
    put: readonly (readonly [key: string, record: unknown])[],
  ): Promise<void>;
}

/** The browser keeps nothing for this page. */
export class ShelfError extends Error {
  constructor(cause: unknown) {
    super("expected the browser to keep a record", { cause });
    this.name = "ShelfError";
  }
}

export class BrowserShelf implements Shelf {
  /** Strict: what was acknowledged may be a key that a one-time link was used up for. */
  readonly #database = new Database("c2l", "homes", { durability: "strict" });

  async all(): Promise<(readonly [string, unknown])[]> {
    return await this.#run("readonly", async (store) => {
      const [keys, records] = await Promise.all([
        resultOf(store.getAllKeys()),
        resultOf(store.getAll() as IDBRequest<unknown[]>),
      ]);
      return keys.map((key, index) => [String(key), records[index]] as const);
    });
  }

  async put(key: string, record: unknown): Promise<void> {
    await this.replace([], [[key, record]]);
  }

  async change(key: string, change: (record: unknown) => unknown): Promise<void> {
    await this.#run("readwrite", async (store) => {
      const changed = change(await resultOf(store.get(key) as IDBRequest<unknown>));
      if (changed !== undefined) store.put(changed, key);
    });
  }

  async replace(removed: readonly string[], put: readonly (readonly [string, unknown])[]): Promise<void> {
    await this.#run("readwrite", async (store) => {
      for (const key of removed) store.delete(key);
      for (const [key, record] of put) store.put(record, key);
    });
  }

  /** Does work in one transaction. @throws ShelfError */
  async #run<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => Promise<T>): Promise<T> {
    try {
      return await this.#database.run(mode, work);
    } catch (error) {
      throw new ShelfError(error);
    }
  }
}
