/** Beneath the list: models, and taking all conversations out or others in. */
import { useRef, useState } from "react";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { useChats } from "@/store/conversation";
import { useHomes } from "@/store/homes";
import { useOpened } from "@/store/place";

export function Transfer({ onModels }: { readonly onModels: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [said, setSaid] = useState("");
  const { busy, problem, run } = useTask();
  const homes = useHomes((state) => state.homes);
  const open = useOpened((state) => state.place?.bridgeId ?? null);
  // What is imported goes to the home that is being talked with, else to the first that can be reached.
  const live = useChats(({ views }) => {
    const reached = homes.filter(({ bridgeId }) => views.get(bridgeId)?.contact === "live");
    return (reached.find(({ bridgeId }) => bridgeId === open) ?? reached[0])?.bridgeId ?? null;
  });
  const exportThem = () =>
    run(async () => {
      const { exportAll } = await import("@/features/chat/transferring");
      setSaid(await exportAll(setSaid));
    });
  const importThem = (files: readonly File[]) =>
    run(async () => {
      const { importFiles } = await import("@/features/chat/transferring");
      if (live !== null) setSaid(await importFiles(live, files, setSaid));
    });
  return (
    <div className="space-y-2 border-t border-line p-2">
      <p className="flex flex-wrap gap-1">
        <button type="button" className="button" onClick={onModels}>
          Models
        </button>
        <button
          type="button"
          className="button"
          disabled={busy || live === null}
          onClick={() => input.current?.click()}
        >
          Import
        </button>
        <button
          type="button"
          className="button"
          disabled={busy || live === null}
          onClick={() => void exportThem()}
        >
          Export all
        </button>
      </p>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept=".json,.jsonl,.ndjson"
        data-testid="import"
        onChange={(event) => {
          void importThem([...(event.target.files ?? [])]);
          event.target.value = "";
        }}
      />
      <p role="status" className="text-sm text-muted empty:hidden">
        {said}
      </p>
      <Trouble problem={problem} />
    </div>
  );
}
