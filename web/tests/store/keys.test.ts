import { describe, expect, it } from "vitest";
import { type ApiKey, decodeKey } from "@/net/keys";
import { decodeRemembered, type ListedKey, merge, union } from "@/store/keys";

const NOW = 1_000_000;

function key(id: string, more: Partial<ApiKey> = {}): ApiKey {
  return { ...decodeKey({ id }), created: 1, expires: NOW + 1, ...more };
}

const seen = (id: string, more: Partial<ApiKey> = {}): ListedKey => ({ ...key(id, more), atHome: true });

describe("merge", () => {
  it("is the home's list, newest first, without the revoked", () => {
    const home = [key("old"), key("new", { created: 2 }), key("gone", { revoked: true })];
    expect(merge(home, [seen("gone")], NOW).map(({ id, atHome }) => [id, atHome])).toEqual([
      ["new", true],
      ["old", true],
    ]);
  });

  it("keeps a key that only this browser saw, until it has expired", () => {
    const merged = merge([key("a")], [seen("made-offline"), seen("over", { expires: NOW })], NOW);
    expect(merged.map(({ id, atHome }) => [id, atHome])).toEqual([
      ["a", true],
      ["made-offline", false],
    ]);
  });

  it("believes the home, not the browser, about what both have", () => {
    expect(merge([key("a", { name: "now" })], [seen("a", { name: "before" })], NOW)).toMatchObject([
      { name: "now", atHome: true },
    ]);
  });
});

describe("union", () => {
  it("has each key once, and believes whoever says that it is revoked", () => {
    const lists = [
      [key("a", { name: "a", lastUsed: 5 }), key("b")],
      [key("a", { name: "Laptop" }), key("b", { revoked: true })],
    ];
    expect(union(lists).map(({ id, name, lastUsed, revoked }) => [id, name, lastUsed, revoked])).toEqual([
      ["a", "Laptop", 5, false],
      ["b", "b", null, true],
    ]);
    expect(union([[key("a", { lastUsed: 5 })], [key("a", { lastUsed: 9 })]])[0]?.lastUsed).toBe(9);
    expect(union([])).toEqual([]);
  });
});

describe("decodeRemembered", () => {
  it("reads what was stored", () => {
    const stored = { user: "u", heard: 5, keys: [{ id: "a", name: "n", expires: 7, at_home: true }] };
    expect(decodeRemembered(stored)).toMatchObject({
      user: "u",
      heard: 5_000,
      keys: [{ id: "a", name: "n", expires: 7_000, atHome: true }],
    });
  });

  it.each([null, [], {}, { keys: [null] }, { keys: [{ name: "n" }] }])("refuses %j", (value) => {
    expect(() => decodeRemembered(value)).toThrow(/^expected /);
  });
});
