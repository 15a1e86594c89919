/** The way home in words: what is the case, and what to do about it. Pure. */
import type { BridgeStatus, EngineKind, WayStatus } from "@/net/status";
import type { Phase } from "@/store/live-answer";

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

export interface Description {
  /** Two words for the pill. */
  readonly label: string;
  readonly tone: Tone;
  readonly sentence: string;
  /** What to do; `null` if nothing has to be done. */
  readonly remedy: string | null;
  /** A command that does it. */
  readonly command: string | null;
}

export interface Circumstances {
  readonly contact: "connecting" | "heard" | "lost";
  readonly status: WayStatus | null;
  /** What the answer in the open conversation is at; `null` if none is being written. */
  readonly phase: Phase | null;
  /** This server's address, for commands. */
  readonly origin: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

function tell(
  label: string,
  tone: Tone,
  sentence: string,
  remedy: string | null = null,
  command: string | null = null,
): Description {
  return { label, tone, sentence, remedy, command };
}

/** Returns the one description that matters most now. */
export function describeWay(at: Circumstances): Description {
  if (at.phase === "reattaching") {
    return tell("Reconnecting", "warn", "The connection broke. The answer is picked up where it broke off.");
  }
  if (at.phase === "writing" || at.phase === "thinking") {
    return tell("Answering", "busy", "Your machine is answering. Esc stops it.");
  }
  if (at.contact === "lost") {
    return tell(
      "No contact",
      "bad",
      "This page has lost contact with the server and keeps trying to reach it.",
      "Check this device's network connection, and that the server is running.",
    );
  }
  if (at.status === null) return tell("Connecting", "idle", "Asking the server how your machine is.");
  const described = describeStatus(at.status, at);
  if (at.phase === "loading" && described.tone === "good") return loadingModel(at.status);
  if (at.phase === "waiting" && described.tone === "good") {
    return tell("Working", "busy", "Your machine has the question and has not answered yet.");
  }
  if (at.phase === "returning" && described.tone === "good") {
    return tell(
      "Working",
      "busy",
      "The bridge at home was started anew; the model says once more what is here, and goes on.",
    );
  }
  return described;
}

function describeStatus(status: WayStatus, at: Circumstances): Description {
  const connected = status.bridges.find((bridge) => bridge.connected);
  switch (status.state) {
    case "no-bridge":
      return tell(
        "No machine",
        "warn",
        "No machine is paired with this account yet.",
        "Start the bridge on the machine that runs your models:",
        `cloudtolocalllm bridge --server ${at.origin}`,
      );
    case "bridge-offline":
      return tell(
        "Machine offline",
        "bad",
        lastSeen(status.bridges, at.now),
        "Wake the machine and check its network. If the bridge does not run there, start it:",
        `cloudtolocalllm bridge --server ${at.origin}`,
      );
    case "engine-down":
      return tell(
        "Engine down",
        "bad",
        `${connected?.name ?? "Your machine"} is connected, but ${engineName(connected)} on it does not answer.`,
        `Start ${engineName(connected)} on that machine; it is noticed by itself.`,
      );
    case "loading":
      return loadingModel(status);
    case "ready":
      return tell(
        "Ready",
        "good",
        `${connected?.name ?? "Your machine"} is connected and its engine answers.`,
      );
  }
}

function loadingModel(status: WayStatus): Description {
  const connected = status.bridges.find((bridge) => bridge.connected);
  return tell(
    "Loading model",
    "busy",
    `${connected?.name ?? "Your machine"} is loading a model into memory. The first answer takes longer.`,
  );
}

function engineName(bridge: BridgeStatus | undefined): string {
  const down = bridge?.engines.find((engine) => engine.state !== "up");
  return down === undefined ? "the model engine" : kindName(down.kind);
}

export function kindName(kind: EngineKind): string {
  switch (kind) {
    case "ollama":
      return "Ollama";
    case "openai":
      return "the OpenAI-compatible engine";
    case "demo":
      return "the scripted demo engine";
    case "other":
      return "the model engine";
  }
}

function lastSeen(bridges: readonly BridgeStatus[], now: number): string {
  const seen = bridges
    .filter((bridge) => bridge.lastSeen !== null)
    .sort((one, other) => (other.lastSeen ?? 0) - (one.lastSeen ?? 0))[0];
  if (seen === undefined || seen.lastSeen === null) return "Your machine is not connected.";
  return `${seen.name} is not connected; it was last seen ${ago(now - seen.lastSeen)}. It may be asleep.`;
}

const STEPS = [
  { ms: 86_400_000, unit: "day" },
  { ms: 3_600_000, unit: "hour" },
  { ms: 60_000, unit: "minute" },
] as const;

export function ago(ms: number): string {
  const step = STEPS.find((candidate) => ms >= candidate.ms);
  if (step === undefined) return "just now";
  const count = Math.floor(ms / step.ms);
  return `${count} ${step.unit}${count === 1 ? "" : "s"} ago`;
}

/** True if any engine is the scripted demo, whose answers come from no model. */
export function hasDemo(status: WayStatus | null): boolean {
  return status?.bridges.some((bridge) => bridge.engines.some((engine) => engine.kind === "demo")) ?? false;
}
