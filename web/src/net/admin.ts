/** The typed client of the admin's overview. */
import { call, read, segment } from "@/net/call";
import { fields, instantOrNull, list, numberOr, text, textOr } from "@/net/decode";

export interface Overview {
  readonly bridgesConnected: number | null;
  readonly instances: number | null;
  readonly usersActive: number | null;
  readonly version: string;
  readonly signUp: string;
  /** The sign-in provider's name; `null` without one. */
  readonly provider: string | null;
}

export interface AuditEvent {
  /** Milliseconds since 1970. */
  readonly time: number | null;
  readonly event: string;
  readonly outcome: string;
  /** A pseudonym; `null` if nobody was known. */
  readonly user: string | null;
  readonly reason: string | null;
}

export type UserAction = "sign-out" | "block" | "unblock";

export function decodeOverview(value: unknown): Overview {
  const document = fields(value);
  return {
    bridgesConnected: numberOr(document["bridges_connected"], null),
    instances: numberOr(document["instances"], null),
    usersActive: numberOr(document["users_active"], null),
    version: textOr(document["version"], "unknown"),
    signUp: textOr(document["sign_up"], "unknown"),
    provider: textOr(document["provider"], null),
  };
}

export function decodeAudit(value: unknown): AuditEvent[] {
  return list(fields(value)["events"]).map((entry) => {
    const document = fields(entry);
    return {
      time: instantOrNull(document["time"]),
      event: text(document["event"]),
      outcome: textOr(document["outcome"], ""),
      user: textOr(document["user"], null),
      reason: textOr(document["reason"], null),
    };
  });
}

/** Whether it can be a user's pseudonym, as the server has them. */
export function isPseudonym(value: string): boolean {
  return /^[A-Za-z0-9_-]{1,64}$/.test(value);
}

export async function getOverview(): Promise<Overview> {
  return read(await call("GET", "/api/admin/overview"), decodeOverview);
}

export async function getAudit(limit: number): Promise<AuditEvent[]> {
  return read(await call("GET", `/api/admin/audit?limit=${limit}`), decodeAudit);
}

export async function postUserAction(user: string, action: UserAction): Promise<void> {
  await call("POST", `/api/admin/users/${segment(user)}/${action}`, {});
}
