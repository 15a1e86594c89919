/** Where people write. Its text is its own state, so that typing renders nothing else. */
import { type FormEvent, type KeyboardEvent, type RefObject, useLayoutEffect, useState } from "react";
import { SendIcon, StopIcon } from "@/features/icons";
import { ModelPicker } from "@/features/models/ModelPicker";
import { send, stop, useConversation } from "@/store/conversation";
import { useModels } from "@/store/models";

/** A draft grows the field up to this; then it scrolls. In CSS pixels. */
const MOST_HEIGHT_PX = 220;

interface Props {
  readonly field: RefObject<HTMLTextAreaElement | null>;
  readonly onSent: () => void;
}

export function Composer({ field, onSent }: Props) {
  const [draft, setDraft] = useState("");
  const answering = useConversation((state) => state.phase !== null);
  const model = useModels((state) => state.chosen);

  useLayoutEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    if (draft !== "") area.style.height = `${Math.min(area.scrollHeight, MOST_HEIGHT_PX)}px`;
  }, [draft, field]);

  const submit = () => {
    const text = draft.trim();
    if (text === "" || answering || model === null) return;
    send(text, model);
    setDraft("");
    onSent();
  };
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    submit();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes, Enter chooses a word.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };

  return (
    <form
      onSubmit={onSubmit}
      className="rounded-2xl border border-edge bg-ground p-2 shadow-sm focus-within:border-accent focus-within:ring-1 focus-within:ring-accent"
    >
      <label htmlFor="draft" className="sr-only">
        Message
      </label>
      <textarea
        id="draft"
        ref={field}
        rows={1}
        value={draft}
        placeholder="Ask your model"
        autoComplete="off"
        aria-describedby="keys"
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={onKeyDown}
        className="block w-full resize-none bg-transparent px-2 py-1.5 leading-relaxed outline-none placeholder:text-muted"
      />
      <p id="keys" className="sr-only">
        Enter sends, Shift and Enter begins a new line, Escape stops an answer.
      </p>
      <div className="flex items-center justify-between gap-2">
        <ModelPicker />
        {answering ? (
          <RoundButton label="Stop" onClick={stop} enabled>
            <StopIcon />
          </RoundButton>
        ) : (
          <RoundButton label="Send" submit enabled={draft.trim() !== "" && model !== null}>
            <SendIcon />
          </RoundButton>
        )}
      </div>
    </form>
  );
}

interface RoundButtonProps {
  readonly label: string;
  readonly enabled: boolean;
  readonly submit?: boolean;
  readonly onClick?: () => void;
  readonly children: React.ReactNode;
}

function RoundButton({ label, enabled, submit = false, onClick, children }: RoundButtonProps) {
  return (
    <button
      // Distinct elements: a click on Stop must not become one on the Send that replaces it.
      key={label}
      type={submit ? "submit" : "button"}
      aria-label={label}
      disabled={!enabled}
      onClick={onClick}
      className="inline-flex size-9 shrink-0 items-center justify-center rounded-full bg-accent text-on-accent hover:bg-accent-strong disabled:bg-sunken disabled:text-muted"
    >
      {children}
    </button>
  );
}
