import { describe, expect, it } from "vitest";
import { bytesOf, endOf, Overlap, type Segment } from "@/net/home/overlap";
import { seeded } from "../../support/chat-world";

const TEXT: readonly Segment[] = [
  { kind: "thinking", text: "Grüße 🦙" },
  { kind: "content", text: "aus der Ferne 🦙🦙" },
  { kind: "thinking", text: "ü" },
];

const whole = (segments: readonly Segment[]) => segments.map(({ kind, text }) => `${kind}:${text}`).join("|");

describe("endOf", () => {
  it("is a true end of at most so many bytes, at every length", () => {
    const size = TEXT.reduce((sum, { text }) => sum + bytesOf(text), 0);
    for (let most = 0; most <= size + 3; most += 1) {
      const end = endOf(TEXT, most);
      const got = end.reduce((sum, { text }) => sum + bytesOf(text), 0);
      expect(got).toBeLessThanOrEqual(most);
      expect(got).toBeGreaterThan(Math.min(most, size) - 4);
      expect(end.map(({ text }) => text).join("")).not.toContain("\ufffd");
      expect(TEXT.map(({ text }) => text).join("")).toMatch(
        new RegExp(`${end.map(({ text }) => text).join("")}$`, "u"),
      );
    }
    expect(whole(endOf(TEXT, size))).toBe(whole(TEXT));
  });
});

describe("Overlap", () => {
  it.each([1, 2, 3, 4, 5])("finds what is new however both were cut (%i)", (seed) => {
    const random = seeded(seed);
    const more: readonly Segment[] = [...TEXT, { kind: "content", text: "and more ü🦙" }];
    const overlap = new Overlap(endOf(TEXT, 12 + Math.floor(random() * 20)));
    const expected = endOf(more, bytesOf("and more ü🦙")).map(({ text }) => text);
    const from = endOf(more, bytesOf("and more ü🦙") + overlap.left);
    const fresh: string[] = [];
    for (const { kind, text } of from) {
      for (const character of text) {
        const rest = overlap.take(kind, character);
        expect(rest).not.toBeNull();
        fresh.push(rest ?? "");
      }
    }
    expect(overlap.left).toBe(0);
    expect(fresh.join("")).toBe(expected.join(""));
  });

  it("notices another text, and another kind", () => {
    expect(new Overlap([{ kind: "content", text: "abc" }]).take("content", "abd")).toBeNull();
    expect(new Overlap([{ kind: "content", text: "abc" }]).take("thinking", "a")).toBeNull();
    expect(new Overlap([{ kind: "content", text: "abc" }]).take("content", "abcd")).toBe("d");
    expect(new Overlap([{ kind: "content", text: "abc" }]).take("content", "ab")).toBe("");
  });
});
