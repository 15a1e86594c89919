import { describe, expect, it } from "vitest";
import { explainProblem } from "@/features/status/explain-problem";
import { browserName, deviceName } from "@/net/home/browser-name";
import { problemFrom } from "@/net/problem";

describe("browserName", () => {
  it.each([
    ["Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on Linux"],
    [
      "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0 Mobile Safari/537.36",
      "Chrome on Android",
    ],
    [
      "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) Version/17.0 Safari/604.1",
      "Safari on iPhone",
    ],
    [
      "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0 Safari/537.36 Edg/137.0",
      "Edge on Windows",
    ],
    ["something else", "Browser"],
  ])("%s", (userAgent, name) => {
    expect(browserName(userAgent)).toBe(name);
  });
});

describe("deviceName", () => {
  it.each([
    ["  Ada's laptop ", "Ada's laptop"],
    ["🦙".repeat(64), "🦙".repeat(64)],
    ["🦙".repeat(65), null],
    [" ", null],
    ["a\u0000b", null],
    ["a\nb", null],
  ])("%j", (typed, name) => {
    expect(deviceName(typed)).toBe(name);
  });
});

describe("explainProblem", () => {
  const document = (type: string) =>
    problemFrom(400, JSON.stringify({ type, title: "Theirs", detail: "Theirs." }));

  it.each(["plain-off", "device-unknown", "exchange-unknown"])("has words of this page for %s", (slug) => {
    const told = explainProblem(document(`urn:c2l:problem:${slug}`));
    expect(told.slug).toBe(slug);
    expect(told.detail).not.toBe("Theirs.");
  });

  it.each(["ohttp-key", "date"])("knows %s of the registry", (slug) => {
    const told = explainProblem(document(`https://iana.org/assignments/http-problem-types#${slug}`));
    expect(told.slug).toBe(slug);
    expect(told.detail).not.toBe("Theirs.");
  });

  it.each(["urn:c2l:problem:bridge-offline", "about:blank", "urn:c2l:problem:constructor"])(
    "leaves %s",
    (type) => {
      expect(explainProblem(document(type))).toMatchObject({ title: "Theirs", detail: "Theirs." });
    },
  );
});
