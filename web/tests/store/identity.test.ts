import { describe, expect, it } from "vitest";
import { createDevice } from "@/protocol/sealed/device";
import { type Identity, IdentityStore, readIdentity } from "@/store/identity";
import type { Shelf } from "@/store/shelf";

/** A shelf as the browser's is, but for the disk. */
class MemoryShelf implements Shelf {
  readonly records = new Map<string, unknown>();
  async all() {
    return [...this.records];
  }
  async put(key: string, record: unknown) {
    this.records.set(key, record);
  }
  async change(key: string, change: (record: unknown) => unknown) {
    const changed = change(this.records.get(key));
    if (changed !== undefined) this.records.set(key, changed);
  }
  async replace(removed: readonly string[], put: readonly (readonly [string, unknown])[]) {
    for (const key of removed) this.records.delete(key);
    for (const [key, record] of put) this.records.set(key, record);
  }
}

async function identity(change: Partial<Identity> = {}): Promise<Identity> {
  const device = await createDevice();
  const fingerprint = new Uint8Array(32).fill(1);
  const common = { user: "u_1", bridgeId: "br_1", state: "paired", agreed: false, seq: 5 } as const;
  return { ...common, name: "Firefox", made: 1_000, device, fingerprint, ...change };
}

function setUp() {
  const shelf = new MemoryShelf();
  return { shelf, store: new IdentityStore(shelf) };
}

describe("IdentityStore", () => {
  it("gives back what it was given, to its user only", async () => {
    const { store } = setUp();
    const [one, other, theirs] = [
      await identity(),
      await identity({ bridgeId: "br_2", made: 500 }),
      await identity({ user: "u_2" }),
    ];
    for (const each of [one, other, theirs]) await store.keep(each);
    expect((await store.of("u_1")).identities).toEqual([other, one]);
    expect((await store.of("u_2")).identities).toEqual([theirs]);
    expect((await store.of("u_3")).identities).toEqual([]);
  });

  it("keeps what is paired until what is being paired is paired", async () => {
    const { store } = setUp();
    const [paired, waiting] = [await identity(), await identity({ state: "waiting" })];
    await store.keep(paired);
    await store.keep(waiting);
    expect((await store.of("u_1")).identities).toHaveLength(2);
    await store.keep({ ...waiting, state: "paired" });
    expect((await store.of("u_1")).identities).toEqual([{ ...waiting, state: "paired" }]);
  });

  it("lets the number of statements only rise, whoever writes", async () => {
    const { store } = setUp();
    const kept = await identity();
    await store.keep(kept);
    await store.acceptSeq(kept, 9);
    await store.acceptSeq(kept, 7);
    expect(await store.highestSeq(kept)).toBe(9);
  });

  it("brings nothing back that was forgotten", async () => {
    const { store, shelf } = setUp();
    const kept = await identity();
    await store.keep(kept);
    await store.forget(kept);
    await store.acceptSeq(kept, 9);
    expect(shelf.records.size).toBe(0);
  });

  it("removes what is damaged, and says so", async () => {
    const { store, shelf } = setUp();
    const good = await identity();
    await store.keep(good);
    await store.keep(await identity({ bridgeId: "br_2" }));
    const [, second] = [...shelf.records.keys()];
    await shelf.change(second ?? "", (record) => ({ ...(record as object), fingerprint: "AAAA" }));
    expect(await store.of("u_1")).toEqual({ identities: [good], damaged: 1 });
    expect(await store.of("u_1")).toEqual({ identities: [good], damaged: 0 });
  });

  it("does not take a record for another home's or user's", async () => {
    const { store, shelf } = setUp();
    await store.keep(await identity());
    const [[key, record] = ["", null]] = [...shelf.records];
    shelf.records.set(key, { ...(record as object), user: "u_2" });
    expect(await store.of("u_2")).toEqual({ identities: [], damaged: 1 });
  });
});

describe("readIdentity", () => {
  it.each<[string, (good: Identity) => Promise<object> | object]>([
    ["a form of another version", () => ({ form: 2 })],
    ["no fingerprint", () => ({ fingerprint: undefined })],
    ["a short fingerprint", () => ({ fingerprint: new Uint8Array(31) })],
    ["another state", () => ({ state: "trusted" })],
    ["a bridge id that is a path", () => ({ bridgeId: "../x" })],
    ["a number that is none", () => ({ seq: -1 })],
    [
      "another device's point",
      async ({ device }) => ({ device: { ...device, point: (await createDevice()).point } }),
    ],
    ["a key that is none", ({ device }) => ({ device: { ...device, privateKey: {} } })],
    [
      "a key that scripts can read",
      async ({ device }) => ({ device: { ...device, privateKey: await readable() } }),
    ],
    ["a public key", async ({ device }) => ({ device: { ...device, privateKey: await publicKey() } })],
  ])("refuses %s", async (_, change) => {
    const good = await identity();
    expect(await readIdentity({ form: 1, ...good })).toEqual(good);
    expect(await readIdentity({ form: 1, ...good, ...(await change(good)) })).toBe(null);
  });

  it.each([null, undefined, 1, "x", [], {}])("refuses %j", async (record) => {
    expect(await readIdentity(record)).toBe(null);
  });
});

const P256 = { name: "ECDSA", namedCurve: "P-256" };

async function readable(): Promise<CryptoKey> {
  return (await crypto.subtle.generateKey(P256, true, ["sign", "verify"])).privateKey;
}

async function publicKey(): Promise<CryptoKey> {
  return (await crypto.subtle.generateKey(P256, false, ["sign", "verify"])).publicKey;
}
