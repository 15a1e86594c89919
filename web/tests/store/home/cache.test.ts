import { describe, expect, it } from "vitest";
import { decodeList, decodeSegments, decodeTalk, HomeCache } from "@/store/home/cache";
import { MemoryShelf } from "../../support/chat-world";

const head = { id: "c", title: "t", pinned: false, created: 1, updated: 2, leaf: null };
const list = { epoch: "e", seen: 3, listed: true, heads: [head] };

describe("what is kept", () => {
  it("is read back as it was", async () => {
    const cache = new HomeCache(new MemoryShelf(), ["u", "d"]);
    expect(await cache.list()).toBeNull();
    await cache.saveList(list);
    expect(await cache.list()).toMatchObject(list);
    await cache.saveLive("r", [{ kind: "content", text: "half" }]);
    expect(await cache.live("r")).toEqual([{ kind: "content", text: "half" }]);
    await cache.forgetLive("r");
    expect(await cache.live("r")).toBeNull();
  });

  it("is each home's own", async () => {
    const shelf = new MemoryShelf();
    await new HomeCache(shelf, ["u", "d"]).saveList(list);
    expect(await new HomeCache(shelf, ["u", "other"]).list()).toBeNull();
    expect(await new HomeCache(shelf, ["other", "d"]).list()).toBeNull();
  });

  it("is of the conversations that were opened last", async () => {
    const shelf = new MemoryShelf();
    const cache = new HomeCache(shelf, ["u", "d"]);
    for (let n = 0; n < 105; n += 1) await cache.saveTalk(`c${n}`, { messages: [], runs: new Map() });
    expect(shelf.records.size).toBe(100);
    expect(await cache.talk("c4")).toBeNull();
    expect(await cache.talk("c104")).not.toBeNull();
  });

  it("is removed once it is not there any more, or has ended", async () => {
    const shelf = new MemoryShelf();
    const [cache, other] = [new HomeCache(shelf, ["u", "d"]), new HomeCache(shelf, ["u", "other"])];
    for (const id of ["stays", "gone"]) {
      await cache.saveTalk(id, { messages: [], runs: new Map() });
      await cache.saveLive(`run ${id}`, []);
    }
    await other.saveTalk("gone", { messages: [], runs: new Map() });
    await cache.saveList(list);
    await cache.tidy(new Set(["stays"]), new Set(["run stays"]));
    expect([await cache.talk("gone"), await cache.live("run gone")]).toEqual([null, null]);
    expect(await cache.talk("stays")).not.toBeNull();
    expect(await cache.live("run stays")).not.toBeNull();
    expect(await other.talk("gone")).not.toBeNull();
    expect(await cache.list()).not.toBeNull();
  });

  it("is not missed where the browser keeps nothing", async () => {
    const broken = {
      get: () => Promise.reject(new Error("no")),
      put: () => Promise.reject(new Error("no")),
      keepOnly: () => Promise.reject(new Error("no")),
    };
    const cache = new HomeCache(broken, ["u", "d"]);
    await cache.saveList(list);
    await cache.tidy(new Set(), new Set());
    expect(await cache.list()).toBeNull();
  });

  it.each([null, {}, { form: 2, ...list, kept: [] }, { form: 1, ...list, heads: [{}], kept: [] }])(
    "is no list as %j",
    (value) => expect(() => decodeList(value)).toThrow(/^expected /),
  );

  it.each([null, { form: 1, messages: [{}], runs: [] }, { form: 1, messages: [], runs: [{ id: "r" }] }])(
    "is no talk as %j",
    (value) => expect(() => decodeTalk(value)).toThrow(/^expected /),
  );

  it.each([
    null,
    { form: 1, segments: [{ kind: "other", text: "" }] },
    { form: 1, segments: [{ kind: "content" }] },
  ])("is no text as %j", (value) => expect(() => decodeSegments(value)).toThrow(/^expected /));
});
