/** The list of conversations of all homes, the search in it, and what is done with all of them. */
import { lazy, Suspense, useMemo, useState } from "react";
import { ConversationItem } from "@/features/chat/ConversationItem";
import type { Conversation } from "@/net/home/api";
import { useChats } from "@/store/conversation";
import type { HomeView } from "@/store/home/model";
import { useOpened } from "@/store/place";

// Who only chats loads none of it.
const SearchResults = lazy(async () => ({
  default: (await import("@/features/chat/extras")).SearchResults,
}));

const Transfer = lazy(async () => ({ default: (await import("@/features/chat/extras")).Transfer }));

/** Mounted at first, and with each click. */
const SHOWN = 60;

interface Props {
  readonly onModels: () => void;
  readonly onOpened: () => void;
}

export interface Listed {
  readonly bridgeId: string;
  readonly head: Conversation;
  readonly running: boolean;
  /** Whether it can be changed now. */
  readonly online: boolean;
}

/** Pinned ones first, then what changed last. Pure. */
export function listOf(views: Iterable<HomeView>): readonly Listed[] {
  const all: Listed[] = [];
  for (const { bridgeId, shown, contact } of views) {
    const running = new Set(shown.running.values());
    for (const head of shown.heads.values())
      all.push({ bridgeId, head, running: running.has(head.id), online: contact === "live" });
  }
  return all.sort(
    ({ head: one }, { head: other }) =>
      Number(other.pinned) - Number(one.pinned) ||
      other.updated - one.updated ||
      (one.id < other.id ? -1 : 1),
  );
}

export function Conversations({ onModels, onOpened }: Props) {
  const [query, setQuery] = useState("");
  const searching = query.trim() !== "";
  return (
    <>
      <div className="p-3">
        <input
          type="search"
          aria-label="Search conversations"
          placeholder="Search"
          autoComplete="off"
          value={query}
          onChange={(event) => setQuery(event.target.value)}
          className="field bg-ground"
        />
      </div>
      <div className="min-h-0 flex-1 overflow-y-auto px-2 pb-2">
        {searching ? (
          <Suspense fallback={null}>
            <SearchResults query={query.trim()} onOpened={onOpened} />
          </Suspense>
        ) : (
          <List onOpened={onOpened} />
        )}
      </div>
      <Suspense fallback={null}>
        <Transfer onModels={onModels} />
      </Suspense>
    </>
  );
}

function List({ onOpened }: { readonly onOpened: () => void }) {
  const views = useChats((state) => state.views);
  const place = useOpened((state) => state.place);
  const [most, setMost] = useState(SHOWN);
  const all = useMemo(() => listOf(views.values()), [views]);
  const several = views.size > 1;
  if (all.length === 0) {
    const waiting = [...views.values()].some(({ contact, shown }) => contact === "opening" && !shown.listed);
    return (
      <p className="px-2 text-sm text-muted">
        {waiting ? "Fetching the list…" : "What you ask is kept at home, and listed here."}
      </p>
    );
  }
  return (
    <>
      <ul aria-label="All conversations" className="space-y-0.5">
        {all.slice(0, most).map((listed) => (
          <ConversationItem
            key={`${listed.bridgeId}/${listed.head.id}`}
            listed={listed}
            named={several}
            current={place?.conversation === listed.head.id && place.bridgeId === listed.bridgeId}
            onOpened={onOpened}
          />
        ))}
      </ul>
      {all.length > most && (
        <button type="button" className="button mt-2 w-full" onClick={() => setMost(most + SHOWN)}>
          Show more ({all.length - most})
        </button>
      )}
    </>
  );
}
