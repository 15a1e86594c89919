import { describe, expect, it } from "vitest";
import type { Model } from "@/net/home/api";
import type { HomeModels } from "@/store/models";
import { choiceOf, offersOf } from "@/store/models";
import { byPriority, decodePriority, moved } from "@/store/priority";

const HOMES = ["tower", "laptop", "attic"].map((bridgeId) => ({ bridgeId, online: true }));
const ids = (homes: readonly { readonly bridgeId: string }[]) => homes.map(({ bridgeId }) => bridgeId);

describe("byPriority", () => {
  it("is the order of homes as it was while none has a priority", () => {
    expect(ids(byPriority(HOMES, []))).toEqual(["tower", "laptop", "attic"]);
  });

  it("has those first that have one, and passes over homes that are gone", () => {
    expect(ids(byPriority(HOMES, ["attic", "gone"]))).toEqual(["attic", "tower", "laptop"]);
    expect(ids(byPriority(HOMES, ["laptop", "attic", "tower"]))).toEqual(["laptop", "attic", "tower"]);
  });
});

it("moves one, and leaves the others in their order", () => {
  const order = ["a", "b", "c"];
  expect(moved(order, "c", 0)).toEqual(["c", "a", "b"]);
  expect(moved(order, "a", 2)).toEqual(["b", "c", "a"]);
  expect(moved(order, "b", 1)).toEqual(order);
});

describe("a new conversation", () => {
  const model: Model = { name: "m", engine: "e", kind: "ollama", state: "up", loaded: false, cloud: false };
  const list: HomeModels = { models: [model], pulls: [], heard: true, loading: false, problem: null };
  const lists = new Map(["tower", "laptop", "attic"].map((id) => [id, list]));
  const answering = (homes: typeof HOMES, order: readonly string[], within: string | null = null) =>
    choiceOf(offersOf(byPriority(homes, order), lists), { model: "m", bridgeId: null }, within, null)
      ?.bridgeId;

  it("goes to the home of the lowest priority", () => {
    expect(answering(HOMES, [])).toBe("tower");
    expect(answering(HOMES, ["attic", "laptop", "tower"])).toBe("attic");
  });

  it("goes to one that is online rather than to one that is preferred", () => {
    const away = HOMES.map((home) => ({ ...home, online: home.bridgeId !== "attic" }));
    expect(answering(away, ["attic", "laptop", "tower"])).toBe("laptop");
  });

  it("stays where it is once it was begun", () => {
    expect(answering(HOMES, ["attic", "laptop", "tower"], "laptop")).toBe("laptop");
  });
});

describe("decodePriority", () => {
  it("reads a user's own only", () => {
    const stored = { user: "u", order: ["a", "b"] };
    expect(decodePriority(stored, "u")).toEqual(["a", "b"]);
    expect(decodePriority(stored, "other")).toEqual([]);
  });

  it.each([null, {}, { user: "u" }, { user: "u", order: [1] }])("refuses %j", (value) => {
    expect(() => decodePriority(value, "u")).toThrow(/^expected /);
  });
});
