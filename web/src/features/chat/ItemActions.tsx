/** What else can be done with a conversation of the list. */
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { Listed } from "@/features/chat/Conversations";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { pin, rename } from "@/store/conversation";
import type { Place } from "@/store/place";

/** The home takes 1 KiB; this many characters always fit. */
const MOST_TITLE = 250;

interface ActionsProps {
  readonly listed: Listed;
  readonly place: Place;
  readonly onRename: () => void;
  readonly onDelete: () => void;
  readonly onDone: () => void;
}

export function Actions({ listed, place, onRename, onDelete, onDone }: ActionsProps) {
  const { head, online } = listed;
  const { busy, problem, run } = useTask();
  const save = () =>
    run(async () => {
      const { exportOne } = await import("@/features/chat/transferring");
      await exportOne(place, head.title);
      onDone();
    });
  return (
    <div className="space-y-2 px-2 pb-2">
      <p className="flex flex-wrap gap-1">
        <button type="button" className="button" disabled={!online} onClick={onRename}>
          Rename
        </button>
        <button
          type="button"
          className="button"
          disabled={!online}
          onClick={() => {
            pin(place, !head.pinned);
            onDone();
          }}
        >
          {head.pinned ? "Unpin" : "Pin"}
        </button>
        <button type="button" className="button" disabled={!online || busy} onClick={() => void save()}>
          Export
        </button>
        <button type="button" className="button button-bad" disabled={!online} onClick={onDelete}>
          Delete
        </button>
      </p>
      <Trouble problem={problem} />
    </div>
  );
}

interface RenameFormProps {
  readonly title: string;
  readonly place: Place;
  readonly onClose: () => void;
}

export function RenameForm({ title, place, onClose }: RenameFormProps) {
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState(title);
  useEffect(() => field.current?.select(), []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const wanted = typed.trim();
    if (wanted !== "" && wanted !== title) rename(place, wanted);
    onClose();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    event.preventDefault();
    onClose();
  };
  return (
    <form onSubmit={submit} onKeyDown={onKeyDown} className="space-y-2">
      <input
        ref={field}
        aria-label="New title"
        maxLength={MOST_TITLE}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        className="field"
      />
      <p className="flex gap-1">
        <button type="submit" className="button button-main">
          Save
        </button>
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
      </p>
    </form>
  );
}
