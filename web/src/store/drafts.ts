/** What is being written, for each conversation. It is kept while the page is open, for who wrote it. */
import { create } from "zustand";
import type { Picked } from "@/store/attachments";

export interface Draft {
  readonly text: string;
  readonly files: readonly Picked[];
}

const EMPTY: Draft = { text: "", files: [] };

interface Drafts {
  readonly user: string | null;
  /** By the address of the conversation; "/" for one that is to be begun. */
  readonly drafts: ReadonlyMap<string, Draft>;
}

export const useDrafts = create<Drafts>(() => ({ user: null, drafts: new Map() }));

export function draftOf({ drafts }: Pick<Drafts, "drafts">, address: string): Draft {
  return drafts.get(address) ?? EMPTY;
}

export function write(address: string, change: Partial<Draft>): void {
  useDrafts.setState(({ drafts }) => {
    const draft = { ...(drafts.get(address) ?? EMPTY), ...change };
    const all = new Map(drafts);
    if (draft.text === "" && draft.files.length === 0) all.delete(address);
    else all.set(address, draft);
    return { drafts: all };
  });
}

/** Adds words before what is being written: nothing of that is lost. */
export function putBack(address: string, text: string): void {
  const { text: begun } = draftOf(useDrafts.getState(), address);
  write(address, { text: begun === "" ? text : `${text}\n\n${begun}` });
}

/** Somebody is signed in: what another one began to write is nobody's. */
export function openDrafts(user: string | null): void {
  if (useDrafts.getState().user !== user) useDrafts.setState({ user, drafts: new Map() });
}

export function forgetDrafts(): void {
  useDrafts.setState({ user: null, drafts: new Map() });
}
