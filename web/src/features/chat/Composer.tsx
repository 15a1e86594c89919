/** Where people write. Only this renders while they type. */
import {
  type ClipboardEvent,
  type FormEvent,
  type KeyboardEvent,
  type RefObject,
  useLayoutEffect,
  useRef,
  useState,
} from "react";
import { useChoice } from "@/features/chat/useChoice";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { ClipIcon, CloseIcon, SendIcon, StopIcon } from "@/features/icons";
import { ModelPicker } from "@/features/models/ModelPicker";
import { type Problem, ProblemError } from "@/net/problem";
import { MOST_FILES, PICKED_TYPES, pick, storeFiles } from "@/store/attachments";
import { activeRun, mayAdd, send, stop, useOpen } from "@/store/conversation";
import { type Draft, draftOf, useDrafts, write } from "@/store/drafts";
import { addressOf, useOpened } from "@/store/place";

/** A draft grows the field up to this; then it scrolls. In CSS pixels. */
const MOST_HEIGHT_PX = 220;

const NOT_NOW: Problem = {
  slug: null,
  title: "The message was not sent",
  detail:
    "An answer is being written in this conversation. The message is still in the field: send it after that.",
  status: 0,
};

const TOO_MANY: Problem = {
  slug: null,
  title: "Not all files were attached",
  detail: `At most ${MOST_FILES} go with a message. Send the others with the next one.`,
  status: 0,
};

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
  /** Where files are being stored for a message. */
  const [storing, setStoring] = useState<string | null>(null);

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
    const { place } = useOpened.getState();
    const say = (attached: Awaited<ReturnType<typeof storeFiles>>) => {
      if (!send(text.trim(), attached, choice, place)) return false;
      write(address, { text: "", files: [] });
      onSent();
      return true;
    };
    forget();
    if (files.length === 0) {
      say([]);
      return;
    }
    setStoring(address);
    await run(async () => {
      // Meanwhile another device may have asked there.
      if (!say(await storeFiles(choice.bridgeId, files))) throw new ProblemError(NOT_NOW);
    }).finally(() => setStoring(null));
  };
  const attach = (picked: Iterable<File>) =>
    run(async () => {
      for (const file of picked) {
        const one = await pick(file);
        const { files } = draftOf(useDrafts.getState(), address);
        if (files.length >= MOST_FILES) throw new ProblemError(TOO_MANY);
        write(address, { files: [...files, one] });
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
        <Files draft={draft} address={address} fixed={storing === address} />
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
          readOnly={storing === address}
          aria-describedby="keys"
          onChange={(event) => write(address, { text: event.target.value })}
          onKeyDown={onKeyDown}
          onPaste={onPaste}
          className="block w-full resize-none bg-transparent px-2 py-1.5 leading-relaxed outline-none placeholder:text-muted"
        />
        <p id="keys" className="sr-only">
          Enter sends, Shift and Enter begins a new line, Escape stops an answer.
        </p>
        <p role="status" className="px-2 text-sm text-muted empty:hidden">
          {storing === address && "Storing the files at home…"}
        </p>
        <div className="flex items-center justify-between gap-2">
          <span className="flex min-w-0 items-center">
            <AttachButton enabled={!busy} onFiles={(files) => void attach(files)} />
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

interface AttachProps {
  readonly enabled: boolean;
  readonly onFiles: (files: readonly File[]) => void;
}

function AttachButton({ enabled, onFiles }: AttachProps) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button
        type="button"
        className="icon-button"
        aria-label="Attach pictures or texts"
        title="Attach pictures or texts"
        disabled={!enabled}
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

interface FilesProps {
  readonly draft: Draft;
  readonly address: string;
  /** They are on their way. */
  readonly fixed: boolean;
}

function Files({ draft, address, fixed }: FilesProps) {
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
            disabled={fixed}
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
