import { describe, expect, it } from "vitest";
import { announcement, outcomeOf, progressText, troubleOf } from "@/features/chat/outcome";
import type { Message, Run } from "@/net/home/api";

const run = (state: Run["state"], more: Partial<Run> = {}): Run => ({
  id: "r",
  conversation: "c",
  message: "m",
  model: "m",
  state,
  reason: "",
  detail: "",
  created: 1,
  ended: 2,
  size: 0,
  prompt_tokens: null,
  answer_tokens: null,
  ...more,
});
const text = { content: "text", thinking: "" };
const nothing = { content: "", thinking: "" };

describe("how an answer stands", () => {
  it.each(["queued", "loading", "streaming"] as const)("is being written while it is %s", (state) => {
    expect(outcomeOf(run(state))).toBe("streaming");
    expect(troubleOf(run(state), nothing)).toBeNull();
  });

  it("is told truly for each end", () => {
    expect(troubleOf(run("done"), text)).toBeNull();
    expect(troubleOf(null, nothing)).toBeNull();
    expect(troubleOf(run("done"), nothing)?.title).toBe("No answer");
    const limited = run("done", { reason: "length", detail: "There may be more." });
    expect(troubleOf(limited, text)).toEqual({
      title: "Cut at its limit",
      detail: "There may be more.",
      mild: true,
    });
    expect(troubleOf(run("stopped"), text)).toMatchObject({ title: "Stopped", mild: true });
    expect(troubleOf(run("interrupted", { detail: "The bridge ended." }), text)).toEqual({
      title: "This answer was interrupted",
      detail: "The bridge ended.",
      mild: false,
    });
    const failed = run("failed", { reason: "engine-error", detail: "ran out of memory" });
    expect(troubleOf(failed, nothing)).toMatchObject({ title: "The model engine broke off", mild: false });
    expect(troubleOf(failed, text)).toMatchObject({
      title: "This answer was cut short",
      detail: "The model engine broke off. ran out of memory",
    });
    expect(troubleOf(run("failed", { reason: "never-heard-of" }), nothing)?.title).toBe("No answer");
  });

  it("is said once at its end", () => {
    expect(announcement(run("done"), text as Message)).toBe("Answer complete.");
    expect(announcement(run("stopped"), text as Message)).toBe("Stopped.");
  });

  it("is said while it is waited for", () => {
    expect(progressText("writing", false, false)).toBeNull();
    expect(progressText("writing", true, false)).toBe("Stopping…");
    expect(progressText("waiting", false, false)).toMatch(/^Waiting/);
    expect(progressText("waiting", false, true)).toMatch(/^Loading the model/);
    expect(progressText("loading", false, false)).toMatch(/^Loading the model/);
    expect(progressText("reattaching", true, false)).toMatch(/^The connection broke/);
    expect(progressText("returning", false, false)).toMatch(/^The bridge at home was started anew/);
  });
});
