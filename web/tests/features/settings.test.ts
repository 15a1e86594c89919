import { describe, expect, it } from "vitest";
import { EMPTY_FORM, type KeyForm, keyRequest } from "@/features/settings/key-request";
import { describeLimits } from "@/features/settings/limits";
import { explainSignInError } from "@/features/sign-in/explain";

const form = (more: Partial<KeyForm>): KeyForm => ({ ...EMPTY_FORM, name: "Laptop", ...more });
const UNLIMITED = { routes: [], models: [], requestsPerMinute: null, tokensPerDay: null, bridge: null };

describe("keyRequest", () => {
  it("asks for no limit where none was typed", () => {
    expect(keyRequest(form({ name: "  Laptop " }))).toEqual({
      request: { name: "Laptop", days: 90, ...UNLIMITED },
    });
  });

  it("reads every limit", () => {
    const limited = form({
      days: 7,
      routes: ["/v1/"],
      models: "qwen*, llama3.2:3b\n hf.co/a/b:Q4_K",
      requestsPerMinute: " 60 ",
      tokensPerDay: "100000",
      bridge: "b1",
    });
    expect(keyRequest(limited)).toEqual({
      request: {
        name: "Laptop",
        days: 7,
        routes: ["/v1/"],
        models: ["qwen*", "llama3.2:3b", "hf.co/a/b:Q4_K"],
        requestsPerMinute: 60,
        tokensPerDay: 100_000,
        bridge: "b1",
      },
    });
  });

  it.each([
    ["name", { name: "  " }],
    ["name", { name: "x".repeat(101) }],
    ["routes", { routes: [] }],
    ["models", { models: "<b>" }],
    ["models", { models: "m ".repeat(17) }],
    ["models", { models: `${"m".repeat(120)} `.repeat(9) }],
    ["requestsPerMinute", { requestsPerMinute: "0" }],
    ["requestsPerMinute", { requestsPerMinute: "1.5" }],
    ["tokensPerDay", { tokensPerDay: "-1" }],
    ["tokensPerDay", { tokensPerDay: "1e6" }],
  ] as const)("finds the fault in %s: %j", (field, more) => {
    const read = keyRequest(form(more));
    expect("faults" in read && Object.keys(read.faults)).toEqual([field]);
  });

  it("tells all faults at once", () => {
    const read = keyRequest(form({ name: "", routes: [], tokensPerDay: "x" }));
    expect("faults" in read && Object.keys(read.faults)).toEqual(["name", "routes", "tokensPerDay"]);
  });
});

describe("describeLimits", () => {
  it("says nothing of what is not limited", () => {
    expect(describeLimits(UNLIMITED, () => null)).toEqual([]);
  });

  it("says every limit, of a route that it does not know too", () => {
    const limits = {
      ...UNLIMITED,
      routes: ["/v1/", "/v1/models"],
      models: ["a*"],
      tokensPerDay: 5,
      bridge: "b",
    };
    expect(describeLimits(limits, () => "tower")).toEqual([
      "Only OpenAI-compatible, /v1/models",
      "Models a*",
      "5 tokens a day",
      "Only tower",
    ]);
    expect(describeLimits({ ...UNLIMITED, bridge: "b" }, () => null)[0]).toContain("not yours any more");
  });
});

describe("explainSignInError", () => {
  it("tells every code apart, and shows none that it does not know", () => {
    const codes = ["provider-unavailable", "not-allowed", "expired", "refused", "rate-limited", "failed"];
    expect(new Set(codes.map((code) => explainSignInError(code).title)).size).toBe(codes.length);
    expect(explainSignInError("<b>call 555</b>")).toEqual(explainSignInError("failed"));
    expect(explainSignInError("constructor")).toEqual(explainSignInError("failed"));
  });
});
