/** An IndexedDB database with one store, opened when it is needed. */

const VERSION = 1;

export class Database {
  #opened: Promise<IDBDatabase> | undefined;

  constructor(
    readonly name: string,
    readonly store: string,
    readonly options: IDBTransactionOptions = {},
  ) {}

  /** Does work in one transaction. @throws whatever the browser says. */
  async run<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => Promise<T>): Promise<T> {
    try {
      this.#opened ??= open(this.name, this.store);
      const transaction = (await this.#opened).transaction(this.store, mode, this.options);
      const done = new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onabort = () => reject(transaction.error);
      });
      const [result] = await Promise.all([work(transaction.objectStore(this.store)), done]);
      return result;
    } catch (error) {
      // Perhaps the browser closed it, as it does when it clears the storage: the next one opens it anew.
      this.#opened = undefined;
      throw error;
    }
  }
}

function open(name: string, store: string): Promise<IDBDatabase> {
  const request = indexedDB.open(name, VERSION);
  request.onupgradeneeded = () => request.result.createObjectStore(store);
  return resultOf(request).then((database) => {
    // Another tab has a newer page: do not stand in its way.
    database.onversionchange = () => database.close();
    return database;
  });
}

export function resultOf<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
