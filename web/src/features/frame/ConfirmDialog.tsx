/** Asks before something that cannot be undone. */
import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";

interface Props {
  readonly title: string;
  /** What the button says that does it. */
  readonly action: string;
  readonly work: () => Promise<void>;
  readonly onDone: () => void;
  readonly onClose: () => void;
  readonly children: ReactNode;
}

/** Is open while it is mounted. The browser keeps the focus within, and gives it back. */
export function ConfirmDialog({ title, action, work, onDone, onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const { busy, problem, run } = useTask();
  // As the layout's effect it closes before it is removed; only then the focus goes back.
  useLayoutEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  const confirm = async () => {
    if (await run(work)) onDone();
  };
  return (
    <dialog ref={dialog} aria-labelledby={heading} className="dialog" onCancel={onClose}>
      <h2 id={heading} className="text-lg font-semibold break-words">
        {title}
      </h2>
      <div className="space-y-2 text-muted">{children}</div>
      <Trouble problem={problem} />
      <div className="flex flex-wrap justify-end gap-2">
        {/* The harmless choice has the focus first. */}
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="button" className="button button-bad" disabled={busy} onClick={() => void confirm()}>
          {action}
        </button>
      </div>
    </dialog>
  );
}
