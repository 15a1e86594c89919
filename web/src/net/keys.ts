/** The typed client for API keys: made and revoked in the cloud. The machines at home list them (`listKeys` of the home API). */
import { call, read, segment } from "@/net/call";
import { fields, instantOrNull, list, numberOr, text, textOr } from "@/net/decode";
import { removing } from "@/net/devices";

/** What a key may do; a member that is empty or `null` is no limit. */
export interface KeyLimits {
  readonly routes: readonly string[];
  readonly models: readonly string[];
  readonly requestsPerMinute: number | null;
  readonly tokensPerDay: number | null;
  /** The id of the only machine that it reaches. */
  readonly bridge: string | null;
}

/** Times are milliseconds since 1970. */
export interface ApiKey extends KeyLimits {
  readonly id: string;
  readonly name: string;
  readonly created: number | null;
  readonly expires: number | null;
  readonly lastUsed: number | null;
  readonly revoked: boolean;
}

export interface NewKeyRequest extends KeyLimits {
  readonly name: string;
  readonly days: number;
}

export function decodeKey(value: unknown): ApiKey {
  const document = fields(value);
  const id = text(document["id"]);
  return {
    id,
    name: textOr(document["name"], id),
    created: instantOrNull(document["created"]),
    expires: instantOrNull(document["expires"]),
    lastUsed: instantOrNull(document["last_used"]),
    revoked: document["revoked"] === true,
    routes: list(document["routes"] ?? []).map(text),
    models: list(document["models"] ?? []).map(text),
    requestsPerMinute: numberOr(document["requests_per_minute"], null),
    tokensPerDay: numberOr(document["tokens_per_day"], null),
    bridge: textOr(document["bridge"], null),
  };
}

/** What is sent for a new key: a limit that is none is left out. */
export function encodeKeyRequest(request: NewKeyRequest): Record<string, unknown> {
  const { name, days, routes, models, requestsPerMinute, tokensPerDay, bridge } = request;
  return {
    name,
    days,
    ...(routes.length > 0 && { routes }),
    ...(models.length > 0 && { models }),
    ...(requestsPerMinute !== null && { requests_per_minute: requestsPerMinute }),
    ...(tokensPerDay !== null && { tokens_per_day: tokensPerDay }),
    ...(bridge !== null && { bridge }),
  };
}

/** Makes a key. `secret` is its text, which nobody can read again. */
export async function postKey(request: NewKeyRequest): Promise<{ key: ApiKey; secret: string }> {
  const sent = encodeKeyRequest(request);
  const response = await call("POST", "/api/auth/keys", sent);
  return read(response, (value) => {
    const document = fields(value);
    return { key: decodeKey({ ...sent, ...document }), secret: text(document["key"]) };
  });
}

export async function deleteKey(id: string): Promise<void> {
  await removing(`/api/auth/keys/${segment(id)}`);
}
