/** The conversation that is open, and the field to write in. */
import { type RefObject, useEffect, useRef, useState } from "react";
import { Composer } from "@/features/chat/Composer";
import { MessageList } from "@/features/chat/MessageList";
import { ContactNotice, Refusals, UnsentNotice } from "@/features/chat/Notices";
import { announcement } from "@/features/chat/outcome";
import { Unpaired } from "@/features/chat/Unpaired";
import { useChoice } from "@/features/chat/useChoice";
import { useStickToEnd } from "@/features/chat/useStickToEnd";
import { Trouble } from "@/features/frame/Trouble";
import { DownIcon } from "@/features/icons";
import type { Run } from "@/net/home/api";
import { activeRun, opened, pathOf, send, stop, useOpen } from "@/store/conversation";
import { runOf } from "@/store/home/tree";
import { useHomes } from "@/store/homes";
import { addressOf, openPlace, useOpened } from "@/store/place";

export function Chat({ field }: { readonly field: RefObject<HTMLTextAreaElement | null> }) {
  const { scroller, content, sticking, jump } = useStickToEnd();
  const ready = useHomes((state) => state.ready);
  const paired = useHomes((state) => state.homes.length > 0);
  const address = useOpened((state) => addressOf(state.place));
  useStopOnEscape();
  return (
    <main className="relative flex min-h-0 min-w-0 flex-1 flex-col">
      <div
        ref={scroller}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Conversation"
        className="min-h-0 flex-1 overflow-y-auto"
      >
        <div ref={content} className="mx-auto flex min-h-full max-w-3xl flex-col px-4 py-6">
          {ready && !paired ? <Unpaired /> : <Talk key={address} scroller={scroller} onSent={jump} />}
        </div>
      </div>
      <div className="mx-auto w-full max-w-3xl px-2 pb-2 sm:px-4 sm:pb-4">
        <div className="relative">
          {!sticking && (
            <button
              type="button"
              aria-label="Jump to the end"
              onClick={jump}
              className="absolute -top-12 left-1/2 inline-flex size-9 -translate-x-1/2 items-center justify-center rounded-full border border-line bg-ground text-ink shadow-md hover:bg-raised"
            >
              <DownIcon />
            </button>
          )}
          <ContactNotice />
          <UnsentNotice />
          <Refusals />
        </div>
        <Composer field={field} onSent={jump} />
      </div>
      <Announcer />
    </main>
  );
}

interface TalkProps {
  readonly scroller: RefObject<HTMLDivElement | null>;
  readonly onSent: () => void;
}

function Talk({ scroller, onSent }: TalkProps) {
  const place = useOpened((state) => state.place);
  const talk = useOpen((at) => at?.talk ?? null);
  const head = useOpen((at) => at?.head ?? null);
  const listed = useOpen((at) => at?.view.shown.listed ?? false);
  const contact = useOpen((at) => at?.view.contact ?? "opening");
  const busy = useOpen((at) => activeRun(at) !== null);
  const { choice, online } = useChoice();
  if (place === null) return <Welcome onSent={onSent} />;
  // Only who hears the home knows that there is none: what this browser saw last may be older than the conversation.
  if (head === null)
    return listed && contact === "live" ? <NotThere /> : <Waiting lost={contact === "lost"} />;
  if (talk === null) return <Waiting lost={contact === "lost"} />;
  const at = opened();
  const path = at === null ? [] : pathOf(at);
  const model = online && !busy ? (choice?.model ?? null) : null;
  return <MessageList bridgeId={place.bridgeId} talk={talk} path={path} model={model} scroller={scroller} />;
}

function Waiting({ lost }: { readonly lost: boolean }) {
  const stuck = useOpen((at) => at?.view.stuck ?? null);
  return (
    <div className="my-auto appear-late space-y-3 text-center text-muted">
      <p>
        {lost
          ? "This browser has not seen this conversation yet, and the machine that keeps it cannot be reached."
          : "Fetching the conversation…"}
      </p>
      {!lost && <Trouble problem={stuck} />}
    </div>
  );
}

function NotThere() {
  return (
    <div className="my-auto appear-late space-y-3 text-center">
      <h2 className="text-xl font-semibold">This conversation is not there any more</h2>
      <p className="text-muted">It was deleted, perhaps from another device.</p>
      <button type="button" className="button" onClick={() => openPlace(null, "replace")}>
        Begin a new one
      </button>
    </div>
  );
}

const STARTERS = [
  "Explain how a TCP connection survives packet loss.",
  "Write a Python function that merges overlapping intervals.",
  "Compare three ways to make coffee in a table.",
];

function Welcome({ onSent }: { readonly onSent: () => void }) {
  const { choice, online } = useChoice();
  const start = (text: string) => {
    if (choice !== null && send(text, [], choice, null)) onSent();
  };
  return (
    <div className="my-auto space-y-6 py-4">
      <div className="space-y-2 text-center">
        <h2 className="text-2xl font-semibold text-balance">Your models, from anywhere</h2>
        <p className="text-pretty text-muted">What you ask is answered by the machine at home.</p>
      </div>
      <ul className="mx-auto grid max-w-xl gap-2">
        {STARTERS.map((starter) => (
          <li key={starter}>
            <button
              type="button"
              disabled={choice === null || !online}
              onClick={() => start(starter)}
              className="w-full rounded-xl border border-line px-4 py-3 text-start text-sm enabled:hover:border-edge enabled:hover:bg-raised disabled:text-muted"
            >
              {starter}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** Esc stops the answer, unless it closes something or is meant for a field of another kind. */
function useStopOnEscape(): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      // While an input method composes, it only takes that back.
      if (event.key !== "Escape" || event.isComposing || isElsewhere(event.target)) return;
      if (document.querySelector(":popover-open, dialog[open]") === null) stop();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
}

/** Esc empties a search, and closes a list of choices. */
function isElsewhere(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, select") !== null;
}

/** Says once how an answer ended; the streaming text itself would drown a screen reader. */
function Announcer() {
  const run = useOpen((at) => activeRun(at)?.id ?? null);
  const followed = useRef<string | null>(null);
  const [text, setText] = useState("");
  useEffect(() => {
    const before = followed.current;
    followed.current = run;
    if (run !== null) setText("");
    else if (before !== null) setText(endOf(before));
  }, [run]);
  return (
    <p role="status" className="sr-only">
      {text}
    </p>
  );
}

/** How a run of the open conversation ended; nothing of one that is not in it. */
function endOf(id: string): string {
  const at = opened();
  const run: Run | undefined = at?.talk?.runs.get(id);
  const message = at?.talk?.messages.find((each) => each.run === id);
  if (run === undefined || message === undefined || at?.talk == null || runOf(at.talk, message) === null)
    return "";
  return announcement(run, message);
}
