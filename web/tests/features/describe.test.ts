import { describe, expect, it } from "vitest";
import { ago, type Circumstances, describeWay, hasDemo } from "@/features/status/describe";
import type { EngineStatus, WayState, WayStatus } from "@/net/status";

const NOW = 1_000_000_000;

function status(state: WayState, engine: Partial<EngineStatus> = {}, connected = true): WayStatus {
  const engines = [{ id: "e", kind: "ollama", state: "up", ...engine } as const];
  const bridge = { id: "b", name: "tower", connected, lastSeen: NOW - 180_000, version: "", engines };
  return { state, bridges: state === "no-bridge" ? [] : [bridge] };
}

function at(circumstances: Partial<Circumstances>): Circumstances {
  return {
    contact: "heard",
    status: status("ready"),
    phase: null,
    origin: "https://c2l.example",
    now: NOW,
    ...circumstances,
  };
}

describe("describeWay", () => {
  it.each([
    [at({ contact: "connecting", status: null }), "Connecting", "idle"],
    [at({ contact: "lost" }), "No contact", "bad"],
    [at({ status: status("no-bridge") }), "No machine", "warn"],
    [at({ status: status("bridge-offline", {}, false) }), "Machine offline", "bad"],
    [at({ status: status("engine-down", { state: "down" }) }), "Engine down", "bad"],
    [at({ status: status("loading", { state: "loading" }) }), "Loading model", "busy"],
    [at({}), "Ready", "good"],
    [at({ phase: "waiting" }), "Working", "busy"],
    [at({ phase: "waiting", status: status("loading") }), "Loading model", "busy"],
    [at({ phase: "writing" }), "Answering", "busy"],
    // The answer itself proves that there is contact.
    [at({ phase: "writing", contact: "lost" }), "Answering", "busy"],
    [at({ phase: "reattaching" }), "Reconnecting", "warn"],
  ])("tells the states apart: %#", (circumstances, label, tone) => {
    const description = describeWay(circumstances);
    expect(description).toMatchObject({ label, tone });
    expect(description.sentence).toMatch(/\.$/);
    if (tone === "bad") expect(description.remedy).not.toBeNull();
  });

  it("names the machine, its last sign of life, the engine and the command", () => {
    const offline = describeWay(at({ status: status("bridge-offline", {}, false) }));
    expect(offline.sentence).toContain("tower");
    expect(offline.sentence).toContain("3 minutes ago");
    expect(offline.command).toBe("cloudtolocalllm bridge --server https://c2l.example");
    expect(describeWay(at({ status: status("engine-down", { state: "down" }) })).remedy).toContain("Ollama");
  });
});

describe("ago", () => {
  it.each([
    [-5, "just now"],
    [59_999, "just now"],
    [60_000, "1 minute ago"],
    [7_200_000, "2 hours ago"],
    [90_000_000, "1 day ago"],
  ])("%i ms is %s", (ms, text) => {
    expect(ago(ms)).toBe(text);
  });
});

describe("hasDemo", () => {
  it("sees the scripted engine", () => {
    expect(hasDemo(null)).toBe(false);
    expect(hasDemo(status("ready"))).toBe(false);
    expect(hasDemo(status("ready", { kind: "demo" }))).toBe(true);
  });
});
