/** The typed client of the server's own routes for the session. */
import { call, read } from "@/net/call";
import { fields, instantOrNull, list, text, textOr } from "@/net/decode";

/** Somewhere to sign in. */
export interface Provider {
  /** Stands in the address where signing in begins. */
  readonly id: string;
  readonly name: string;
}

export interface Session {
  readonly signedIn: boolean;
  /** A pseudonym. */
  readonly user: string | null;
  /** Milliseconds since 1970. */
  readonly expires: number | null;
  readonly name: string | null;
  readonly email: string | null;
  readonly admin: boolean;
  readonly providers: readonly Provider[];
  /** Whether a one-time link from the server's own machine signs in. */
  readonly byLink: boolean;
}

export function decodeSession(value: unknown): Session {
  const document = fields(value);
  const signedIn = document["signed_in"] === true;
  const providers = list(document["providers"] ?? []).map(decodeProvider);
  return {
    signedIn,
    user: textOr(document["user"], null),
    expires: instantOrNull(document["expires"]),
    name: textOr(document["name"], null),
    email: textOr(document["email"], null),
    admin: signedIn && document["admin"] === true,
    providers: providers.filter((provider) => provider !== null),
    byLink: textOr(document["sign_in"], "link") === "link",
  };
}

function decodeProvider(value: unknown): Provider | null {
  const document = fields(value);
  const id = text(document["id"]);
  // It becomes part of an address.
  return /^[a-z0-9-]{1,40}$/.test(id) ? { id, name: textOr(document["name"], id) } : null;
}

export async function getSession(): Promise<Session> {
  return read(await call("GET", "/api/auth/session"), decodeSession);
}

/** Returns the half of the session that this page has to keep, from a home that serves it itself; else `null`. */
export async function postSignIn(token: string): Promise<string | null> {
  const response = await call("POST", "/api/auth/sign-in", { token });
  if (response.status === 204) return null;
  return read(response, (value) => textOr(fields(value)["page_key"], null));
}

/** Returns where the provider ends its own session; `null` if there is nothing to go to. */
export async function postSignOut(): Promise<string | null> {
  return readRedirect(await call("POST", "/api/auth/sign-out"));
}

/** Reads `{redirect_to}`; an empty body has none. */
export async function readRedirect(response: Response): Promise<string | null> {
  if (response.status === 204) return null;
  return read(response, (value) => textOr(fields(value)["redirect_to"], null));
}

/** The address at which signing in at a provider begins, and to which of our pages it comes back. */
export function signInAddress(provider: Provider, returnTo: string): string {
  return `/api/auth/${provider.id}/start?${new URLSearchParams({ return_to: returnTo })}`;
}
