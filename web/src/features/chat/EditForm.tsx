/** Writing a message anew. */
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import type { Message } from "@/net/home/api";
import { rewrite } from "@/store/conversation";

interface EditFormProps {
  readonly message: Message;
  /** `null` while nothing can be asked. */
  readonly model: string | null;
  readonly onClose: () => void;
}

export function EditForm({ message, model, onClose }: EditFormProps) {
  const field = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(message.content);
  const may = model !== null && (text.trim() !== "" || message.attachments.length > 0);
  useEffect(() => {
    const area = field.current;
    area?.focus();
    area?.setSelectionRange(area.value.length, area.value.length);
  }, []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (may && rewrite(message, text.trim(), model)) onClose();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    // It closes the form, and stops no answer.
    event.stopPropagation();
    onClose();
  };
  return (
    <form onSubmit={submit} onKeyDown={onKeyDown} className="w-full max-w-[85%] space-y-2">
      <textarea
        ref={field}
        aria-label="Edited message"
        rows={Math.min(12, text.split("\n").length + 1)}
        value={text}
        onChange={(event) => setText(event.target.value)}
        className="field resize-y"
      />
      <p className="flex flex-wrap justify-end gap-2">
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="button button-main" disabled={!may}>
          Ask this instead
        </button>
      </p>
    </form>
  );
}
