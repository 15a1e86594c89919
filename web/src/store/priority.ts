/**
 * Which home answers a new conversation where several that are online have its model: the one of the lowest priority.
 * Kept in this browser for one user; homes without a priority follow those that have one.
 */
import { create } from "zustand";
import { fields, list, text } from "@/net/decode";
import { load, remove, save } from "@/store/storage";

const STORED = "c2l.priority.v1";

interface Priority {
  /** Ids of bridges. */
  readonly order: readonly string[];
}

export const usePriority = create<Priority>(() => ({ order: [] }));

/** @throws DecodeError - it is none. */
export function decodePriority(value: unknown, user: string): readonly string[] {
  const document = fields(value);
  return text(document["user"]) === user ? list(document["order"]).map(text) : [];
}

/** Takes up what this browser keeps for a user. */
export function openPriority(user: string): void {
  usePriority.setState({ order: load(STORED, (value) => decodePriority(value, user)) ?? [] });
}

/** Removes what this browser keeps of it. */
export function forgetPriority(): void {
  remove(STORED);
  usePriority.setState({ order: [] });
}

/** Homes by priority; those that have none last, as they came. Pure. */
export function byPriority<T extends { readonly bridgeId: string }>(
  homes: readonly T[],
  order: readonly string[],
): readonly T[] {
  const place = ({ bridgeId }: T) => {
    const found = order.indexOf(bridgeId);
    return found < 0 ? order.length : found;
  };
  return [...homes].sort((one, other) => place(one) - place(other));
}

/** The order with one of them at another place; the others keep theirs among each other. Pure. */
export function moved(order: readonly string[], bridgeId: string, place: number): readonly string[] {
  return order.filter((id) => id !== bridgeId).toSpliced(place, 0, bridgeId);
}

/** Gives the homes these priorities. */
export function setPriority(user: string, order: readonly string[]): void {
  usePriority.setState({ order });
  save(STORED, { user, order });
}
