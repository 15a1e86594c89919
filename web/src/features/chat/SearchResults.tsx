/** What was found in titles and messages of all homes; of those that cannot be reached, in the titles seen last. */
import { useEffect, useState } from "react";
import { PlaceLink } from "@/features/chat/ConversationItem";
import { Trouble } from "@/features/frame/Trouble";
import { useHomeName } from "@/features/homes/useHomeName";
import { type Hit, searchAll } from "@/net/home/api";
import { type Problem, ProblemError } from "@/net/problem";
import { useChats } from "@/store/conversation";
import { type Home, useHomes } from "@/store/homes";

/** Somebody who types on has not finished the question. */
const PAUSE_MS = 250;

interface Found {
  readonly bridgeId: string;
  readonly hits: readonly Hit[];
  readonly problem: Problem | null;
}

interface Props {
  readonly query: string;
  readonly onOpened: () => void;
}

export function SearchResults({ query, onOpened }: Props) {
  const searched = useSearch(query);
  if (searched === null) return <p className="appear-late px-2 text-sm text-muted">Searching…</p>;
  const { found, left } = searched;
  const count = found.reduce((sum, { hits }) => sum + hits.length, 0);
  return (
    <>
      <p role="status" className="px-2 pb-1 text-sm text-muted">
        {saidOf(count, left)}
      </p>
      {found.map(({ bridgeId, hits, problem }) => (
        <div key={bridgeId}>
          {found.length + left > 1 && <HomeHeading bridgeId={bridgeId} />}
          <Trouble problem={problem} />
          <ul className="space-y-0.5">
            {hits.map((hit) => (
              <li key={`${hit.conversation}/${hit.message}`}>
                <PlaceLink
                  place={{ bridgeId, conversation: hit.conversation }}
                  message={hit.message}
                  onOpened={onOpened}
                >
                  <Snippet hit={hit} />
                </PlaceLink>
              </li>
            ))}
          </ul>
        </div>
      ))}
    </>
  );
}

function saidOf(count: number, left: number): string {
  if (left > 0) return count === 0 ? "Searching…" : `${count} found so far`;
  return count === 0 ? "Nothing was found." : `${count} found`;
}

function HomeHeading({ bridgeId }: { readonly bridgeId: string }) {
  return <h2 className="px-2 pt-2 text-xs font-medium text-muted">{useHomeName(bridgeId)}</h2>;
}

function Snippet({ hit }: { readonly hit: Hit }) {
  const parts = hit.snippet.map(({ text, hit: isHit }, index) =>
    // A part may stand twice; its place is what counts.
    isHit ? <mark key={index}>{text}</mark> : <span key={index}>{text}</span>,
  );
  return (
    <span className="min-w-0 flex-1">
      <span className="block truncate">{hit.message === null ? parts : hit.title || "Untitled"}</span>
      {hit.message !== null && <span className="line-clamp-3 text-xs break-words text-muted">{parts}</span>}
    </span>
  );
}

interface Searched {
  /** In the order of the homes. */
  readonly found: readonly Found[];
  /** Homes that have not answered yet: nobody waits for the slowest. */
  readonly left: number;
}

/** Returns what was found; `null` while that is not known. */
function useSearch(query: string): Searched | null {
  const [searched, setSearched] = useState<Searched | null>(null);
  useEffect(() => {
    const leaving = new AbortController();
    const timer = setTimeout(() => {
      const { homes } = useHomes.getState();
      const answers = new Map<string, Found>();
      for (const home of homes)
        void searchIn(home, query, leaving.signal).then((one) => {
          if (leaving.signal.aborted) return;
          answers.set(home.bridgeId, one);
          const found = homes.flatMap(({ bridgeId }) => answers.get(bridgeId) ?? []);
          setSearched({ found, left: homes.length - found.length });
        });
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      leaving.abort();
    };
  }, [query]);
  return searched;
}

async function searchIn({ bridgeId, transport }: Home, query: string, signal: AbortSignal): Promise<Found> {
  const view = useChats.getState().views.get(bridgeId);
  if (view?.contact !== "live") return { bridgeId, hits: titlesWith(bridgeId, query), problem: null };
  try {
    const { hits } = await searchAll(transport, { query, limit: 30 }, signal);
    return { bridgeId, hits, problem: null };
  } catch (error) {
    const problem = error instanceof ProblemError ? error.problem : null;
    if (problem === null && !signal.aborted) throw error;
    return { bridgeId, hits: titlesWith(bridgeId, query), problem };
  }
}

function titlesWith(bridgeId: string, query: string): readonly Hit[] {
  const heads = useChats.getState().views.get(bridgeId)?.shown.heads.values() ?? [];
  const wanted = query.toLocaleLowerCase();
  return [...heads]
    .filter(({ title }) => title.toLocaleLowerCase().includes(wanted))
    .slice(0, 30)
    .map(({ id, title }) => ({
      conversation: id,
      title,
      message: null,
      snippet: [{ text: title, hit: false }],
      score: 0,
    }));
}
