/** Where the short code is typed that a machine without a browser shows. */
import { type FormEvent, useId, useRef, useState } from "react";
import { normalCode } from "@/net/pairing";

interface Props {
  readonly initial: string;
  /** Whether the server takes no attempt now. */
  readonly waiting: boolean;
  readonly onCode: (code: string) => void;
}

export function CodeForm({ initial, waiting, onCode }: Props) {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState(initial);
  const [wrong, setWrong] = useState(false);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const code = normalCode(typed);
    setWrong(code === null);
    if (code === null) field.current?.focus();
    else if (!waiting) onCode(code);
  };
  return (
    <form onSubmit={submit} noValidate className="space-y-3">
      <div className="space-y-1">
        <label htmlFor={id} className="block font-medium text-ink">
          Code
        </label>
        <input
          id={id}
          ref={field}
          value={typed}
          maxLength={20}
          placeholder="BCDF-GHJK"
          autoComplete="off"
          autoCapitalize="characters"
          spellCheck={false}
          aria-invalid={wrong}
          aria-describedby={wrong ? `${id}-wrong` : undefined}
          onChange={(event) => setTyped(event.target.value)}
          className="field font-mono text-lg tracking-widest uppercase placeholder:opacity-100"
        />
        {wrong && (
          <p id={`${id}-wrong`} role="alert" className="text-sm text-bad">
            A code has eight letters, such as BCDF-GHJK.
          </p>
        )}
      </div>
      <button type="submit" className="button button-main" disabled={waiting}>
        Continue
      </button>
    </form>
  );
}
