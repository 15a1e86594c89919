/** What stands between the page and the home, above the field to write in. */
import { write } from "@/features/chat/draft";
import { useChoice } from "@/features/chat/useChoice";
import { Trouble } from "@/features/frame/Trouble";
import { useHomeName } from "@/features/homes/useHomeName";
import { explainProblem } from "@/features/status/explain-problem";
import { WayNotice } from "@/features/status/Notices";
import { useDescription } from "@/features/status/StatusPill";
import { forgive, useChats, useOpen } from "@/store/conversation";
import type { Edit } from "@/store/home/edits";
import type { HomeView, Refusal } from "@/store/home/model";
import { useHomes } from "@/store/homes";
import { addressOf, openPlace, useOpened } from "@/store/place";

/** What the server knows to be wrong, else what this page does. */
export function ContactNotice() {
  const { tone } = useDescription();
  const { choice, within } = useChoice();
  const first = useHomes((state) => state.homes[0]?.bridgeId ?? null);
  const home = within ?? choice?.bridgeId ?? first;
  const view = useChats(({ views }) => (home === null ? undefined : views.get(home)));
  const trouble = useHomes((state) => state.homes.find(({ bridgeId }) => bridgeId === home)?.trouble ?? null);
  const told = tone === "bad" || tone === "warn" || trouble !== null;
  return (
    <>
      <WayNotice />
      {!told && view?.contact === "lost" && <Lost view={view} />}
    </>
  );
}

function Lost({ view }: { readonly view: HomeView }) {
  const name = useHomeName(view.bridgeId);
  const problem = view.problem === null ? null : explainProblem(view.problem);
  return (
    <section
      role="status"
      className="mb-2 rounded-xl border border-warn-line bg-warn-ground px-4 py-3 text-sm"
    >
      <p className="mb-1 font-semibold break-words text-warn">{name} cannot be reached</p>
      <p>What is shown is what this browser saw last. It can be changed once the machine is back.</p>
      {problem !== null && (
        <p className="break-words">
          {problem.title}. {problem.detail}
        </p>
      )}
    </section>
  );
}

/** What was written while the way was lost is not silently kept back. */
export function UnsentNotice() {
  const unsent = useOpen(
    (at) =>
      at?.view.contact === "lost" &&
      at.view.pending.some(
        ({ edit, taken }) => taken === null && edit.conversation === at.place.conversation,
      ),
  );
  if (unsent !== true) return null;
  return (
    <p role="status" className="mb-2 rounded-xl border border-line bg-raised px-4 py-2 text-sm">
      Not sent yet. It is sent as soon as the machine can be reached.
    </p>
  );
}

const NONE: readonly Refusal[] = [];

/** What the home would not do, with the way to get one's words back. */
export function Refusals() {
  const place = useOpened((state) => state.place);
  const refusals = useOpen((at) => at?.view.refusals ?? NONE);
  if (place === null) return null;
  const mine = refusals.filter(({ conversation }) => conversation === place.conversation);
  const takeBack = ({ id, edits }: Refusal, content: string) => {
    forgive(place.bridgeId, id);
    const begun = edits.some(({ kind }) => kind === "create");
    if (begun) openPlace(null, "replace");
    write(begun ? "/" : addressOf(place), { text: content });
  };
  return mine.map((refusal) => {
    const content = contentIn(refusal.edits);
    return (
      <div key={refusal.id} className="mb-2 space-y-2">
        <Trouble problem={refusal.problem} />
        <p className="flex flex-wrap gap-2">
          {content !== null && (
            <button type="button" className="button" onClick={() => takeBack(refusal, content)}>
              Put the message back into the field
            </button>
          )}
          <button type="button" className="button" onClick={() => forgive(place.bridgeId, refusal.id)}>
            Dismiss
          </button>
        </p>
      </div>
    );
  });
}

function contentIn(edits: readonly Edit[]): string | null {
  for (const edit of edits) if (edit.kind === "say" || edit.kind === "rewrite") return edit.content;
  return null;
}
