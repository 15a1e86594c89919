/**
 * What a home has not taken yet, kept for this tab, so that a reload loses nobody's words. The ids in it are the same
 * ever after: what the home had taken already is not done twice.
 */
import { type Fields, fields, list, oneOf, text } from "@/net/decode";
import { readAttached } from "@/net/home/api";
import { flag, listOf, number, orNull } from "@/net/home/shapes";
import type { Edit } from "@/store/home/edits";

const PREFIX = "c2l.unsent.v1 ";

/** Where one home's are kept. */
export interface UnsentShelf {
  load(): readonly Edit[];
  save(edits: readonly Edit[]): void;
}

/** For a page that may keep nothing. */
export const NO_SHELF: UnsentShelf = { load: () => [], save: () => {} };

export function tabShelf(user: string, bridgeId: string): UnsentShelf {
  const key = `${PREFIX}${JSON.stringify([user, bridgeId])}`;
  return {
    load() {
      try {
        const stored = sessionStorage.getItem(key);
        return stored === null ? [] : decodeEdits(JSON.parse(stored));
      } catch {
        return [];
      }
    },
    save(edits) {
      try {
        if (edits.length === 0) sessionStorage.removeItem(key);
        else sessionStorage.setItem(key, JSON.stringify(edits));
      } catch {
        // Full or switched off: it is sent all the same, only not after a reload.
      }
    },
  };
}

/** Removes what this tab keeps for anybody else; for `null`, for everybody. */
export function forgetUnsentBut(user: string | null): void {
  try {
    const mine = user === null ? null : `${PREFIX}[${JSON.stringify(user)},`;
    for (const key of Object.keys(sessionStorage))
      if (key.startsWith(PREFIX) && (mine === null || !key.startsWith(mine))) sessionStorage.removeItem(key);
  } catch {
    // Storage is switched off: there is nothing to remove.
  }
}

/** @throws Error - they are none. */
export function decodeEdits(value: unknown): readonly Edit[] {
  return list(value).map((each) => decodeEdit(fields(each)));
}

const KINDS = ["create", "rename", "pin", "delete", "say", "rewrite", "choose", "answer", "stop"] as const;

function decodeEdit(document: Fields): Edit {
  const base = { conversation: text(document["conversation"]), at: number(document["at"]) };
  const kind = oneOf(document["kind"], KINDS);
  switch (kind) {
    case "create":
    case "rename":
      return { ...base, kind, title: text(document["title"]) };
    case "pin":
      return { ...base, kind, pinned: flag(document["pinned"]) };
    case "delete":
      return { ...base, kind };
    case "say": {
      const attachments = listOf(readAttached)(document["attachments"]);
      const parent = orNull(text)(document["parent"]);
      const message = text(document["message"]);
      return { ...base, kind, message, parent, content: text(document["content"]), attachments };
    }
    case "rewrite": {
      const [message, id] = [text(document["message"]), text(document["id"])];
      return { ...base, kind, message, id, content: text(document["content"]) };
    }
    case "choose":
      return { ...base, kind, message: text(document["message"]) };
    case "answer": {
      const message = orNull(text)(document["message"]);
      const [parent, run] = [text(document["parent"]), text(document["run"])];
      return { ...base, kind, parent, run, model: text(document["model"]), message };
    }
    case "stop":
      return { ...base, kind, run: text(document["run"]) };
  }
}
