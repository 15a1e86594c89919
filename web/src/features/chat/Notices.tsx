/** What stands between the page and the home, above the field to write in. */
import { useMemo } from "react";
import { useChoice } from "@/features/chat/useChoice";
import { Trouble } from "@/features/frame/Trouble";
import { useHomeName } from "@/features/homes/useHomeName";
import { explainProblem } from "@/features/status/explain-problem";
import { WayNotice } from "@/features/status/Notices";
import { useDescription } from "@/features/status/StatusPill";
import { forgive, useChats, useOpen } from "@/store/conversation";
import { putBack } from "@/store/drafts";
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

/** What homes would not do, wherever one is by now, with the way to get one's words back. */
export function Refusals() {
  const open = useOpened((state) => state.place);
  const views = useChats((state) => state.views);
  const all = useMemo(
    () =>
      [...views.values()].flatMap(({ bridgeId, refusals }) =>
        refusals.map((each) => ({ bridgeId, ...each })),
      ),
    [views],
  );
  const takeBack = ({ bridgeId, id, conversation, edits }: Told, content: string) => {
    forgive(bridgeId, id);
    // What is not there, or was never begun, cannot be written in.
    const isThere = views.get(bridgeId)?.shown.heads.has(conversation) === true;
    const begun = edits.some(({ kind }) => kind === "create");
    const to = isThere && !begun ? { bridgeId, conversation } : null;
    openPlace(to, "replace");
    putBack(addressOf(to), content);
  };
  return all.map((refusal) => {
    const { bridgeId, id, conversation, problem, edits } = refusal;
    const content = contentIn(edits);
    return (
      <div key={`${bridgeId} ${id}`} className="mb-2 space-y-2">
        {conversation !== open?.conversation && <p className="text-sm">In another conversation:</p>}
        <Trouble problem={problem} />
        <p className="flex flex-wrap gap-2">
          {content !== null && (
            <button type="button" className="button" onClick={() => takeBack(refusal, content)}>
              Put the message back into the field
            </button>
          )}
          <button type="button" className="button" onClick={() => forgive(bridgeId, id)}>
            Dismiss
          </button>
        </p>
      </div>
    );
  });
}

interface Told extends Refusal {
  readonly bridgeId: string;
}

function contentIn(edits: readonly Edit[]): string | null {
  for (const edit of edits) if (edit.kind === "say" || edit.kind === "rewrite") return edit.content;
  return null;
}
