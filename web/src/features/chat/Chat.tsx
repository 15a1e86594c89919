/** The conversation and the field to write in. */
import { type RefObject, useEffect, useState } from "react";
import { Composer } from "@/features/chat/Composer";
import { MessageView } from "@/features/chat/MessageView";
import { useStickToEnd } from "@/features/chat/useStickToEnd";
import { DownIcon } from "@/features/icons";
import { WayNotice } from "@/features/status/Notices";
import { send, stop, useConversation } from "@/store/conversation";
import type { Message } from "@/store/messages";
import { useModels } from "@/store/models";

/** A long conversation opens with its end; mounting hundreds of messages at once would freeze the page. */
const SHOWN_AT_FIRST = 30;
const SHOWN_MORE = 60;

export function Chat({ field }: { readonly field: RefObject<HTMLTextAreaElement | null> }) {
  const messages = useConversation((state) => state.messages);
  const { scroller, content, sticking, jump } = useStickToEnd();
  useStopOnEscape();
  return (
    <main className="relative flex min-h-0 flex-1 flex-col">
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
          {messages.length === 0 ? <Welcome onSent={jump} /> : <MessageList messages={messages} />}
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
          <WayNotice />
        </div>
        <Composer field={field} onSent={jump} />
      </div>
      <Announcer />
    </main>
  );
}

function MessageList({ messages }: { readonly messages: readonly Message[] }) {
  const [shown, setShown] = useState(SHOWN_AT_FIRST);
  const hidden = Math.max(0, messages.length - shown);
  return (
    <div className="space-y-6">
      {hidden > 0 && (
        <button type="button" className="button mx-auto flex" onClick={() => setShown(shown + SHOWN_MORE)}>
          Show earlier messages ({hidden})
        </button>
      )}
      {messages.slice(hidden).map((message, index, all) => (
        <MessageView key={message.id} message={message} last={index === all.length - 1} />
      ))}
    </div>
  );
}

const STARTERS = [
  "Explain how a TCP connection survives packet loss.",
  "Write a Python function that merges overlapping intervals.",
  "Compare three ways to make coffee in a table.",
];

function Welcome({ onSent }: { readonly onSent: () => void }) {
  const model = useModels((state) => state.chosen);
  const start = (text: string) => {
    if (model === null) return;
    send(text, model);
    onSent();
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
              disabled={model === null}
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

/** Esc stops the answer, unless it closes a panel. */
function useStopOnEscape(): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key === "Escape" && document.querySelector(":popover-open") === null) stop();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
}

/** Says once how an answer ended; the streaming text itself would drown a screen reader. */
function Announcer() {
  const answering = useConversation((state) => state.phase !== null);
  const [text, setText] = useState("");
  useEffect(() => {
    if (answering) {
      setText("");
      return () => setText(announcement(useConversation.getState().messages.at(-1)));
    }
    return undefined;
  }, [answering]);
  return (
    <p role="status" className="sr-only">
      {text}
    </p>
  );
}

function announcement(message: Message | undefined): string {
  if (message?.role !== "assistant") return "";
  switch (message.outcome) {
    case "done":
    case "limited":
      return "Answer complete.";
    case "stopped":
      return "Answer stopped.";
    case "cut-short":
      return "The answer was cut short.";
    case "failed":
      return `No answer. ${message.problem?.title ?? ""}`;
    case "streaming":
      return "";
  }
}
