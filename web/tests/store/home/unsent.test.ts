import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Edit } from "@/store/home/edits";
import { decodeEdits, forgetUnsentBut, tabShelf } from "@/store/home/unsent";

const base = { conversation: "c", at: 1 };
const attachments = [{ sha256: "0".repeat(64), name: "a.txt", media_type: "text/plain", size: 3 }];
const ALL: readonly Edit[] = [
  { ...base, kind: "create", title: "t" },
  { ...base, kind: "rename", title: "t" },
  { ...base, kind: "pin", pinned: true },
  { ...base, kind: "delete" },
  { ...base, kind: "say", message: "m", parent: null, content: "Grüße 🦙", attachments },
  { ...base, kind: "rewrite", message: "m", id: "n", content: "x" },
  { ...base, kind: "choose", message: "m" },
  { ...base, kind: "answer", parent: "m", run: "r", model: "tiny", message: null },
  { ...base, kind: "stop", run: "r" },
];

/** The browser's storage of one tab: its keys are its own properties, as there. */
function storage(): Storage {
  const items: Record<string, string> = {};
  const methods = {
    getItem: (key: string) => items[key] ?? null,
    setItem: (key: string, value: string) => {
      items[key] = value;
    },
    removeItem: (key: string) => {
      delete items[key];
    },
  };
  const own = { ownKeys: () => Reflect.ownKeys(items), getOwnPropertyDescriptor: ofItems };
  function ofItems(_: object, key: string | symbol) {
    return Reflect.getOwnPropertyDescriptor(items, key);
  }
  return new Proxy(methods, own) as unknown as Storage;
}

beforeEach(() => vi.stubGlobal("sessionStorage", storage()));
afterEach(() => vi.unstubAllGlobals());

describe("what was not sent yet", () => {
  it("is there after a reload, for the same person and home", () => {
    tabShelf("u", "b1").save(ALL);
    expect(tabShelf("u", "b1").load()).toEqual(ALL);
    expect(tabShelf("u", "b2").load()).toEqual([]);
    expect(tabShelf("v", "b1").load()).toEqual([]);
    tabShelf("u", "b1").save([]);
    expect(tabShelf("u", "b1").load()).toEqual([]);
    expect(Object.keys(sessionStorage)).toEqual([]);
  });

  it("is nobody's once another person is signed in, or this one has left", () => {
    for (const user of ["u", "u2"]) tabShelf(user, "b1").save(ALL);
    sessionStorage.setItem("other", "stays");
    forgetUnsentBut("u");
    expect(tabShelf("u", "b1").load()).toEqual(ALL);
    expect(tabShelf("u2", "b1").load()).toEqual([]);
    forgetUnsentBut(null);
    expect(Object.keys(sessionStorage)).toEqual(["other"]);
  });

  it("is only sent while the page is open where storage is switched off or full", () => {
    vi.stubGlobal("sessionStorage", undefined);
    tabShelf("u", "b1").save(ALL);
    expect(tabShelf("u", "b1").load()).toEqual([]);
    expect(() => forgetUnsentBut(null)).not.toThrow();
  });

  it.each([null, {}, [{}], [{ ...base, kind: "other" }], [{ ...base, kind: "say", message: "m" }]])(
    "is nothing as %j",
    (value) => {
      expect(() => decodeEdits(value)).toThrow(/^expected /);
      sessionStorage.setItem('c2l.unsent.v1 ["u","b1"]', JSON.stringify(value));
      expect(tabShelf("u", "b1").load()).toEqual([]);
    },
  );
});
