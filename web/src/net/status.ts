/** What `GET /api/streaming/events` says about the way home, as values. Pure. */
import { type Fields, fields, instantOrNull, list, oneOf, text, textOr } from "@/net/decode";

const WAY_STATES = ["no-bridge", "bridge-offline", "engine-down", "loading", "ready"] as const;
const ENGINE_KINDS = ["ollama", "openai", "demo"] as const;
const ENGINE_STATES = ["up", "down", "loading"] as const;

export type WayState = (typeof WAY_STATES)[number];
export type EngineKind = (typeof ENGINE_KINDS)[number] | "other";

export interface EngineStatus {
  readonly id: string;
  readonly kind: EngineKind;
  readonly state: (typeof ENGINE_STATES)[number];
}

export interface BridgeStatus {
  readonly id: string;
  readonly name: string;
  readonly connected: boolean;
  /** Milliseconds since 1970; `null` if it was never seen. */
  readonly lastSeen: number | null;
  readonly version: string;
  readonly engines: readonly EngineStatus[];
}

export interface WayStatus {
  readonly state: WayState;
  readonly bridges: readonly BridgeStatus[];
}

/** @throws DecodeError - it is not a status document. */
export function decodeStatus(value: unknown): WayStatus {
  const document = fields(value);
  return {
    state: oneOf(document["state"], WAY_STATES),
    bridges: list(document["bridges"]).map(decodeBridge),
  };
}

function decodeBridge(value: unknown): BridgeStatus {
  const document: Fields = fields(value);
  const id = text(document["id"]);
  return {
    id,
    name: textOr(document["name"], id),
    connected: document["connected"] === true,
    lastSeen: instantOrNull(document["last_seen"]),
    version: textOr(document["version"], ""),
    engines: list(document["engines"] ?? []).map(decodeEngine),
  };
}

function decodeEngine(value: unknown): EngineStatus {
  const document = fields(value);
  const kind = document["kind"];
  return {
    id: text(document["id"]),
    // A newer bridge may know kinds that this page does not.
    kind: ENGINE_KINDS.find((known) => known === kind) ?? "other",
    state: oneOf(document["state"], ENGINE_STATES),
  };
}
