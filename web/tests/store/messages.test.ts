import { describe, expect, it } from "vitest";
import { LiveAnswer } from "@/store/live-answer";
import { type AnswerMessage, asChatMessages, decodeConversation, type Message } from "@/store/messages";

const answer: AnswerMessage = {
  id: "2",
  role: "assistant",
  text: "Hello",
  thought: "",
  model: "m",
  outcome: "done",
  problem: null,
  figures: { firstTokenMs: 100, tokens: 3, tokensPerSecond: 20 },
};
const question: Message = { id: "1", role: "user", text: "Hi" };

describe("decodeConversation", () => {
  it("reads back what was stored", () => {
    const saved = { user: "owner", messages: [question, answer] };
    expect(decodeConversation(JSON.parse(JSON.stringify(saved)))).toEqual(saved);
  });

  it("never shows an interrupted answer as a whole one", () => {
    const saved = { user: null, messages: [{ ...answer, outcome: "streaming", figures: null }] };
    expect(decodeConversation(saved).messages[0]).toMatchObject({ outcome: "cut-short", text: "Hello" });
  });

  it.each([
    null,
    {},
    { messages: {} },
    { messages: [{ ...question, role: "system" }] },
    { messages: [{ ...question, text: 5 }] },
    { messages: [{ ...answer, outcome: "perfect" }] },
    { messages: [{ ...answer, problem: "text" }] },
    { messages: [{ ...answer, figures: 3 }] },
  ])("refuses %j", (value) => {
    expect(() => decodeConversation(value)).toThrow(/^expected .*, got /);
  });
});

describe("asChatMessages", () => {
  it("leaves empty answers out", () => {
    expect(asChatMessages([question, { ...answer, text: "", outcome: "failed" }, question])).toEqual([
      { role: "user", content: "Hi" },
      { role: "user", content: "Hi" },
    ]);
  });
});

describe("LiveAnswer", () => {
  it("measures the first token and the pace after it", () => {
    const live = new LiveAnswer(1_000);
    expect(live.figures()).toBeNull();
    for (let count = 0; count < 11; count += 1) live.take({ kind: "text", text: "x" }, 1_400 + count * 50);
    expect(live.figures()).toEqual({ firstTokenMs: 400, tokens: 11, tokensPerSecond: 20 });
    live.take({ kind: "usage", completionTokens: 21 }, 2_000);
    expect(live.figures()).toMatchObject({ tokens: 21, tokensPerSecond: 40 });
  });

  it("gives a late writer everything, and each piece once", () => {
    const live = new LiveAnswer(0);
    live.take({ kind: "thought", text: "hm" }, 1);
    live.take({ kind: "text", text: "a" }, 1);
    const seen: string[] = [];
    const release = live.write({
      onThought: (text) => seen.push(`thought ${text}`),
      onText: (text) => seen.push(text),
      onEnd: () => seen.push("end"),
    });
    live.take({ kind: "text", text: "b" }, 2);
    release();
    live.take({ kind: "text", text: "c" }, 3);
    expect(seen).toEqual(["thought hm", "a", "b"]);
    expect(live.text).toBe("abc");
  });

  it("ends on the mark and on an error", () => {
    const problem = { slug: "engine-error", title: "", detail: "", status: 200 };
    expect(new LiveAnswer(0).take({ kind: "done" }, 1)).toBe(true);
    const live = new LiveAnswer(0);
    expect(live.take({ kind: "error", problem }, 1)).toBe(true);
    expect(live.problem).toBe(problem);
  });
});
