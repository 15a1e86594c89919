/**
 * The pairing link's fragment: taken out of the address and the history before anything else, and kept in this tab, also
 * across signing in at a provider. It is sent nowhere; what is sent is sealed with the secret in it.
 */
import { create } from "zustand";
import { fields, numberOr, text } from "@/net/decode";
import { isLoopback } from "@/net/loopback";
import { type PairingLink, readLink } from "@/protocol/sealed/pairing";
import { navigate, usePlace } from "@/store/location";

const KEY = "c2l.pairing-link.v1";
/** As long as a link is good. */
const LIFE_MS = 600_000;
const BEGIN = "c2l1.";

export interface TakenLink {
  /** `null` for one that was not copied whole. */
  readonly link: PairingLink | null;
  /** It came with a link that signs in: whoever has that is at the machine. */
  readonly withSignIn: boolean;
}

/** The link that this tab keeps. */
export const usePairingLink = create<{ readonly taken: TakenLink | null }>(() => ({ taken: null }));

/** Takes a link out of the address, as it does from now on. Call once, when the page starts, before signing in. */
export function followPairingLinks(): void {
  usePairingLink.setState({ taken: kept() });
  take();
  // A link that is opened in the tab of this page changes nothing but the fragment.
  window.addEventListener("hashchange", take);
}

function take(): void {
  const { route } = usePlace.getState();
  const fragment = location.hash.slice(1);
  if (route.page === "pair" && fragment.startsWith(BEGIN)) {
    keep(fragment, false);
    navigate("/pair", "replace");
  } else if (route.page === "sign-in") {
    const parameters = new URLSearchParams(fragment);
    const pair = parameters.get("pair");
    // The session takes the rest of this fragment, and then there is none.
    if (pair !== null && parameters.has("token")) keep(pair, true);
  }
}

/** Keeps a link that was typed; returns whether it looks like one. */
export function keepTypedLink(typed: string): boolean {
  const at = typed.indexOf(BEGIN);
  const fragment = at < 0 ? "" : typed.slice(at).trim();
  if (linkOf(fragment) === null) return false;
  keep(fragment, false);
  return true;
}

export function forgetPairingLink(): void {
  usePairingLink.setState({ taken: null });
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Storage is switched off.
  }
}

function keep(fragment: string, withSignIn: boolean): void {
  usePairingLink.setState({ taken: { link: linkOf(fragment), withSignIn } });
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ fragment, withSignIn, at: Date.now() }));
  } catch {
    // Storage is switched off, and with it what pairing needs.
  }
}

function kept(): TakenLink | null {
  try {
    const stored = sessionStorage.getItem(KEY);
    if (stored === null) return null;
    const document = fields(JSON.parse(stored));
    const age = Date.now() - numberOr(document["at"], 0);
    if (age < 0 || age > LIFE_MS) throw new RangeError("expected a link of the last ten minutes");
    return { link: linkOf(text(document["fragment"])), withSignIn: document["withSignIn"] === true };
  } catch {
    forgetPairingLink();
    return null;
  }
}

function linkOf(fragment: string): PairingLink | null {
  try {
    return readLink(fragment);
  } catch {
    return null;
  }
}

/**
 * Goes on with the link that the tab keeps, once somebody is signed in. A link that came with a sign-in link was made
 * together with it, by the program on this very computer; so on a page of this computer there is nothing to be asked.
 */
export async function goOnWithLink(user: string | null): Promise<void> {
  const { taken } = usePairingLink.getState();
  if (taken === null) return;
  if (taken.withSignIn && taken.link !== null && isLoopback(location.origin)) {
    const { pairQuietly } = await import("@/store/pairing");
    if (await pairQuietly(user, taken.link)) {
      forgetPairingLink();
      return;
    }
  }
  if (usePlace.getState().route.page !== "pair") navigate("/pair", "replace");
}
