/**
 * Which conversation is open. It stands in the address, so that a reload, a bookmark and the browser's buttons find it;
 * in the fragment, which no server gets to see.
 */
import { create } from "zustand";
import { navigate, usePlace } from "@/store/location";

export interface Place {
  readonly bridgeId: string;
  readonly conversation: string;
}

export const useOpened = create<{ readonly place: Place | null }>(() => ({ place: placeIn(location.hash) }));

/** Pure. */
export function placeIn(fragment: string): Place | null {
  const found = /^#c=([A-Za-z0-9_-]{1,64})\/([A-Za-z0-9_-]{16,64})$/.exec(fragment);
  const [, bridgeId, conversation] = found ?? [];
  return bridgeId === undefined || conversation === undefined ? null : { bridgeId, conversation };
}

export function addressOf(place: Place | null): string {
  return place === null ? "/" : `/#c=${place.bridgeId}/${place.conversation}`;
}

/** The message that somebody looked for, until it is shown. */
let target: string | null = null;

export function takeTarget(): string | null {
  const taken = target;
  target = null;
  return taken;
}

/** Opens a conversation, at one of its messages. */
export function openMessage(place: Place, message: string | null): void {
  target = message;
  openPlace(place);
}

/** Opens a conversation, or none: what is written then begins one. */
export function openPlace(place: Place | null, how: "push" | "replace" = "push"): void {
  if (addressOf(place) !== addressOf(useOpened.getState().place)) navigate(addressOf(place), how);
  useOpened.setState({ place });
}

/** Puts the address of what is open where it belongs, after another page had its own there. */
export function restoreAddress(): void {
  const { place } = useOpened.getState();
  if (place !== null && placeIn(location.hash) === null) navigate(addressOf(place), "replace");
}

/** Follows the browser's buttons until the returned function is called. */
export function followPlace(): () => void {
  const look = () => {
    // Elsewhere in the page, what was open stays open.
    if (usePlace.getState().route.page === "chat") useOpened.setState({ place: placeIn(location.hash) });
  };
  // Who comes back from another page finds what was open, and its address.
  const { place } = useOpened.getState();
  if (place === null) look();
  window.addEventListener("popstate", look);
  return () => window.removeEventListener("popstate", look);
}
