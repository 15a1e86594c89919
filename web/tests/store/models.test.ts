import { describe, expect, it } from "vitest";
import type { Model } from "@/net/home/api";
import { choiceOf, decodeLists, type HomeModels, offersOf } from "@/store/models";

function model(name: string, more: Partial<Model> = {}): Model {
  return { name, engine: "e", kind: "ollama", state: "up", loaded: false, cloud: false, ...more };
}

function list(...names: string[]): HomeModels {
  const models = names.map((name) => model(name));
  return { models, pulls: [], heard: true, loading: false, problem: null };
}

const LISTS = new Map([
  ["tower", list("big:70b", "small:3b")],
  ["laptop", list("small:3b", "tiny:1b")],
]);
const homes = (tower: boolean, laptop: boolean) => [
  { bridgeId: "tower", online: tower },
  { bridgeId: "laptop", online: laptop },
];

describe("one list over all homes", () => {
  it("names each model once, with the homes that have it", () => {
    const offers = offersOf(homes(true, true), LISTS);
    expect(offers.map(({ model, homes }) => [model, homes.map(({ bridgeId }) => bridgeId)])).toEqual([
      ["big:70b", ["tower"]],
      ["small:3b", ["tower", "laptop"]],
      ["tiny:1b", ["laptop"]],
    ]);
  });

  it("has first what can be had now, and marks the rest", () => {
    const offers = offersOf(homes(false, true), LISTS);
    expect(offers.map(({ model }) => model)).toEqual(["small:3b", "tiny:1b", "big:70b"]);
    expect(offers[0]?.homes[0]).toEqual({ bridgeId: "laptop", online: true });
    expect(offers[2]?.homes).toEqual([{ bridgeId: "tower", online: false }]);
  });
});

describe("what would answer", () => {
  const both = offersOf(homes(true, true), LISTS);

  it("is the chosen model, at the chosen home", () => {
    expect(choiceOf(both, { model: "small:3b", bridgeId: null }, null, null)).toEqual({
      bridgeId: "tower",
      model: "small:3b",
    });
    expect(choiceOf(both, { model: "small:3b", bridgeId: "laptop" }, null, null)?.bridgeId).toBe("laptop");
  });

  it("is at another home for a new conversation while the chosen one is away", () => {
    const chosen = { model: "small:3b", bridgeId: "tower" };
    const away = offersOf(homes(false, true), LISTS);
    expect(choiceOf(away, chosen, null, null)?.bridgeId).toBe("laptop");
    // One that was begun stays, and so does one that no other could answer.
    expect(choiceOf(away, chosen, "tower", null)?.bridgeId).toBe("tower");
    expect(choiceOf(offersOf(homes(false, false), LISTS), chosen, null, null)?.bridgeId).toBe("tower");
  });

  it("is of the home that the conversation is at", () => {
    expect(choiceOf(both, { model: "big:70b", bridgeId: null }, "laptop", "tiny:1b")).toEqual({
      bridgeId: "laptop",
      model: "tiny:1b",
    });
    expect(choiceOf(both, { model: "small:3b", bridgeId: "tower" }, "laptop", null)?.bridgeId).toBe("laptop");
  });

  it("is the first when nothing was chosen, and nothing where there is nothing", () => {
    expect(choiceOf(both, null, null, null)).toEqual({ bridgeId: "tower", model: "big:70b" });
    expect(choiceOf([], { model: "small:3b", bridgeId: null }, null, null)).toBeNull();
    expect(choiceOf(both, null, "elsewhere", null)).toBeNull();
  });
});

describe("decodeLists", () => {
  it("reads a user's own lists only", () => {
    const stored = { user: "u", homes: { tower: { models: [model("a")], pulls: [] } } };
    expect(decodeLists(stored, "u").get("tower")?.models).toHaveLength(1);
    expect(decodeLists(stored, "other").size).toBe(0);
  });

  it.each([null, {}, { user: "u" }, { user: "u", homes: { tower: { models: [{}] } } }])(
    "refuses %j",
    (value) => {
      expect(() => decodeLists(value, "u")).toThrow(/^expected /);
    },
  );
});
