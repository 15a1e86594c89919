/** What is being written, for each conversation. It is kept while the page is open. */
import { create } from "zustand";
import type { Picked } from "@/store/attachments";

export interface Draft {
  readonly text: string;
  readonly files: readonly Picked[];
}

const EMPTY: Draft = { text: "", files: [] };

/** By the address of the conversation; "/" for one that is to be begun. */
export const useDrafts = create<{ readonly drafts: ReadonlyMap<string, Draft> }>(() => ({
  drafts: new Map(),
}));

export function draftOf({ drafts }: { readonly drafts: ReadonlyMap<string, Draft> }, address: string): Draft {
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

export function forgetDrafts(): void {
  useDrafts.setState({ drafts: new Map() });
}
