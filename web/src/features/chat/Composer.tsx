/** Where people write. Only this renders while they type. */
import {
  type ClipboardEvent,
  type FormEvent,
  type KeyboardEvent,
  type RefObject,
  useLayoutEffect,
  useRef,
} from "react";
import { type Draft, draftOf, useDrafts, write } from "@/features/chat/draft";
import { useChoice } from "@/features/chat/useChoice";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { ClipIcon, CloseIcon, SendIcon, StopIcon } from "@/features/icons";
import { ModelPicker } from "@/features/models/ModelPicker";
import { MOST_FILES, PICKED_TYPES, pick, storeFiles } from "@/store/attachments";
import { activeRun, mayAdd, send, stop, useOpen } from "@/store/conversation";
import { addressOf, useOpened } from "@/store/place";

/** A draft grows the field up to this; then it scrolls. In CSS pixels. */
const MOST_HEIGHT_PX = 220;

interface Props {
  readonly field: RefObject<HTMLTextAreaElement | null>;
  readonly onSent: () => void;
}

export function Composer({ field, onSent }: Props) {
  const address = useOpened((state) => addressOf(state.place));
  const draft = useDrafts((state) => draftOf(state, address));
  const answering = useOpen((at) => activeRun(at) !== null);
  const ready = useOpen(mayAdd);
  const { choice, online } = useChoice();
  const { busy, problem, run, forget } = useTask();

  useLayoutEffect(() => {
    const area = field.current;
    if (area === null) return;
    area.style.height = "auto";
    if (draft.text !== "") area.style.height = `${Math.min(area.scrollHeight, MOST_HEIGHT_PX)}px`;
  }, [draft.text, field]);

  const isEmpty = draft.text.trim() === "" && draft.files.length === 0;
  const may = !isEmpty && ready && !busy && online && choice !== null;
  const submit = async () => {
    if (!may) return;
    const { text, files } = draft;
    const say = (attached: Awaited<ReturnType<typeof storeFiles>>) => {
      write(address, { text: "", files: [] });
      send(text.trim(), attached, choice);
      onSent();
    };
    forget();
    if (files.length === 0) say([]);
    else await run(async () => say(await storeFiles(choice.bridgeId, files)));
  };
  const attach = (picked: Iterable<File>) =>
    run(async () => {
      for (const file of picked) {
        const { files } = draftOf(useDrafts.getState(), address);
        if (files.length < MOST_FILES) write(address, { files: [...files, await pick(file)] });
      }
    });
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    void submit();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes, Enter chooses a word.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    void submit();
  };
  const onPaste = (event: ClipboardEvent) => {
    if (event.clipboardData.files.length === 0) return;
    event.preventDefault();
    void attach(event.clipboardData.files);
  };

  return (
    <>
      <div className="mb-2 empty:hidden">
        <Trouble problem={problem} />
      </div>
      <form
        onSubmit={onSubmit}
        className="rounded-2xl border border-edge bg-ground p-2 shadow-sm focus-within:border-accent focus-within:ring-1 focus-within:ring-accent"
      >
        <Files draft={draft} address={address} />
        <label htmlFor="draft" className="sr-only">
          Message
        </label>
        <textarea
          id="draft"
          ref={field}
          rows={1}
          value={draft.text}
          placeholder="Ask your model"
          autoComplete="off"
          aria-describedby="keys"
          onChange={(event) => write(address, { text: event.target.value })}
          onKeyDown={onKeyDown}
          onPaste={onPaste}
          className="block w-full resize-none bg-transparent px-2 py-1.5 leading-relaxed outline-none placeholder:text-muted"
        />
        <p id="keys" className="sr-only">
          Enter sends, Shift and Enter begins a new line, Escape stops an answer.
        </p>
        <div className="flex items-center justify-between gap-2">
          <span className="flex min-w-0 items-center">
            <AttachButton onFiles={(files) => void attach(files)} />
            <ModelPicker />
          </span>
          {answering ? (
            <RoundButton label="Stop" onClick={stop} enabled>
              <StopIcon />
            </RoundButton>
          ) : (
            <RoundButton label="Send" submit enabled={may}>
              <SendIcon />
            </RoundButton>
          )}
        </div>
      </form>
    </>
  );
}

function AttachButton({ onFiles }: { readonly onFiles: (files: readonly File[]) => void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button
        type="button"
        className="icon-button"
        aria-label="Attach pictures or texts"
        title="Attach pictures or texts"
        onClick={() => input.current?.click()}
      >
        <ClipIcon />
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept={PICKED_TYPES}
        data-testid="attach"
        onChange={(event) => {
          onFiles([...(event.target.files ?? [])]);
          // The same file may be chosen again.
          event.target.value = "";
        }}
      />
    </>
  );
}

function Files({ draft, address }: { readonly draft: Draft; readonly address: string }) {
  if (draft.files.length === 0) return null;
  const without = (index: number) => draft.files.filter((_, place) => place !== index);
  return (
    <ul aria-label="To be sent" className="mb-1 flex flex-wrap gap-1 px-1">
      {draft.files.map((file, index) => (
        // The same file may be there twice; its place is what counts.
        <li
          key={index}
          className="inline-flex max-w-full items-center gap-1 rounded-lg bg-sunken pl-2 text-sm"
        >
          <span className="truncate">{file.name}</span>
          <button
            type="button"
            className="icon-button"
            aria-label={`Leave ${file.name} out`}
            onClick={() => write(address, { files: without(index) })}
          >
            <CloseIcon />
          </button>
        </li>
      ))}
    </ul>
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
