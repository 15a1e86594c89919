/** Gives something another name. */
import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";

interface Props {
  readonly name: string;
  /** In characters. */
  readonly most: number;
  readonly rename: (wanted: string) => Promise<void>;
  readonly onClose: () => void;
}

export function RenameForm({ name, most, rename, onClose }: Props) {
  const field = useRef<HTMLInputElement>(null);
  const label = useId();
  const [typed, setTyped] = useState(name);
  const { busy, problem, run } = useTask();
  useEffect(() => field.current?.select(), []);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const wanted = typed.trim();
    if (wanted === "") {
      field.current?.focus();
      return;
    }
    if (await run(() => rename(wanted))) onClose();
  };
  return (
    <form onSubmit={(event) => void submit(event)} className="space-y-2">
      <label htmlFor={label} className="block text-sm font-medium">
        New name
      </label>
      <input
        id={label}
        ref={field}
        value={typed}
        maxLength={most}
        required
        autoComplete="off"
        onChange={(event) => setTyped(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") onClose();
        }}
        className="field"
      />
      <Trouble problem={problem} />
      <div className="flex flex-wrap gap-2">
        <button type="submit" className="button button-main" disabled={busy}>
          Save
        </button>
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
      </div>
    </form>
  );
}
