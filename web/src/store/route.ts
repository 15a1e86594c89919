/** Which page an address means. Pure. */

export type Route =
  | { readonly page: "chat" | "settings" | "admin" | "unknown" }
  /** `error`: why signing in at a provider failed. `returnTo`: where to go then, one of our own addresses. */
  | { readonly page: "sign-in"; readonly error: string | null; readonly returnTo: string }
  /**
   * What to approve: a short code, or the id of a request; neither if the code is still to be typed. Or with which of
   * the account's machines to pair this browser: `home`.
   */
  | {
      readonly page: "pair";
      readonly code: string | null;
      readonly request: string | null;
      readonly home: string | null;
    };

const PLAIN = { "/": "chat", "/settings": "settings", "/admin": "admin" } as const;

export function parseRoute(path: string, query: string): Route {
  const parameters = new URLSearchParams(query);
  const value = (name: string) => parameters.get(name) || null;
  if (path === "/sign-in")
    return { page: "sign-in", error: value("error"), returnTo: ownAddress(value("return_to")) };
  if (path === "/pair")
    return { page: "pair", code: value("code"), request: value("request"), home: bridgeId(value("home")) };
  const known = Object.hasOwn(PLAIN, path) ? PLAIN[path as keyof typeof PLAIN] : null;
  return { page: known ?? "unknown" };
}

/** It becomes part of an address. */
function bridgeId(value: string | null): string | null {
  return value !== null && /^[A-Za-z0-9_-]{1,64}$/.test(value) ? value : null;
}

/** Returns an address of one of our own pages as it is, and the chat's for anything else. */
export function ownAddress(value: string | null): string {
  // Two slashes, or what browsers take for them, would begin the name of another host.
  if (value === null || !/^\/(?![/\\])[\x21-\x7e]*$/.test(value) || value.includes("\\")) return "/";
  const url = new URL(value, "https://own.invalid");
  if (url.origin !== "https://own.invalid") return "/";
  const { page } = parseRoute(url.pathname, url.search);
  return page === "unknown" || page === "sign-in" ? "/" : url.pathname + url.search;
}
