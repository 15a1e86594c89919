/** One message of the conversation. */
import { memo, useId, useState } from "react";
import { AnswerBody } from "@/features/chat/AnswerBody";
import { CopyIcon, RetryIcon } from "@/features/icons";
import { copyText } from "@/render/clipboard";
import { retry, useConversation } from "@/store/conversation";
import type { AnswerMessage, Figures, Message } from "@/store/messages";
import { useModels } from "@/store/models";
import { useWay } from "@/store/way";

interface Props {
  readonly message: Message;
  readonly last: boolean;
}

export const MessageView = memo(function MessageView({ message, last }: Props) {
  const heading = useId();
  if (message.role === "user") {
    return (
      <article aria-labelledby={heading} className="flex justify-end">
        <h2 id={heading} className="sr-only">
          You
        </h2>
        <p className="max-w-[85%] rounded-2xl rounded-br-md bg-tint px-4 py-2.5 leading-relaxed break-words whitespace-pre-wrap">
          {message.text}
        </p>
      </article>
    );
  }
  return (
    <article aria-labelledby={heading} data-outcome={message.outcome}>
      <h2 id={heading} className="sr-only">
        Answer of {message.model}
      </h2>
      <AnswerBody message={message} />
      {message.outcome === "streaming" ? <Progress /> : <Ending message={message} last={last} />}
    </article>
  );
});

function Progress() {
  const phase = useConversation((state) => state.phase);
  const loading = useWay((state) => state.status?.state === "loading");
  const text = progressText(phase, loading);
  if (text === null) return null;
  return (
    <p className="mt-2 flex items-center gap-2 text-sm text-muted">
      <span className="size-2 rounded-full bg-busy motion-safe:animate-pulse" />
      {text}
    </p>
  );
}

function progressText(phase: string | null, loading: boolean): string | null {
  if (phase === "reattaching") return "The connection broke. Picking the answer up where it broke off…";
  if (phase === "thinking") return "Thinking…";
  if (phase !== "waiting") return null;
  return loading
    ? "Loading the model into memory. The first answer takes longer…"
    : "Waiting for the first word…";
}

function Ending({ message, last }: { readonly message: AnswerMessage; readonly last: boolean }) {
  return (
    <>
      <Trouble message={message} last={last} />
      {message.text !== "" && (
        <footer className="mt-2 -ml-2 flex flex-wrap items-center gap-x-2 text-xs text-muted">
          <CopyAnswer text={message.text} />
          <span>{message.model}</span>
          {message.figures !== null && <FigureList figures={message.figures} />}
        </footer>
      )}
    </>
  );
}

function FigureList({ figures }: { readonly figures: Figures }) {
  const { firstTokenMs, tokens, tokensPerSecond } = figures;
  return (
    <>
      <span>{`· ${tokens} ${tokens === 1 ? "token" : "tokens"}`}</span>
      {tokensPerSecond !== null && (
        <span>{`· ${tokensPerSecond.toFixed(tokensPerSecond < 100 ? 1 : 0)} tokens/s`}</span>
      )}
      <span>{`· first after ${(firstTokenMs / 1000).toFixed(2)} s`}</span>
    </>
  );
}

function CopyAnswer({ text }: { readonly text: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    if (!(await copyText(text))) return;
    setCopied(true);
    setTimeout(() => setCopied(false), 1_500);
  };
  return (
    <button
      type="button"
      className="icon-button"
      aria-label={copied ? "Copied" : "Copy answer"}
      onClick={() => void copy()}
    >
      {copied ? <span aria-hidden="true">✓</span> : <CopyIcon />}
    </button>
  );
}

interface TroubleText {
  readonly title: string;
  readonly detail: string;
  readonly mild: boolean;
}

function troubleText({ outcome, problem }: AnswerMessage): TroubleText | null {
  const because = problem === null ? "" : `${problem.title}. ${problem.detail}`;
  switch (outcome) {
    case "stopped":
      return { title: "Stopped", detail: "You stopped this answer.", mild: true };
    case "limited":
      return { title: "Length limit", detail: "The model reached its limit before it was done.", mild: true };
    case "cut-short":
      return { title: "This answer was cut short", detail: because, mild: false };
    case "failed":
      return { title: problem?.title ?? "No answer", detail: problem?.detail ?? "", mild: false };
    default:
      return null;
  }
}

function Trouble({ message, last }: { readonly message: AnswerMessage; readonly last: boolean }) {
  const trouble = troubleText(message);
  if (trouble === null) return null;
  const colours = trouble.mild ? "border-line bg-raised" : "border-bad-line bg-bad-ground";
  return (
    <div
      className={`mt-3 flex flex-wrap items-center justify-between gap-3 rounded-xl border px-4 py-3 text-sm ${colours}`}
    >
      <div className="min-w-0 flex-1 basis-48">
        <p className={trouble.mild ? "font-medium" : "font-semibold text-bad"}>{trouble.title}</p>
        <p className="break-words">{trouble.detail}</p>
      </div>
      {last && (
        <button
          type="button"
          className="button"
          onClick={() => retry(useModels.getState().chosen ?? message.model)}
        >
          <RetryIcon />
          Try again
        </button>
      )}
    </div>
  );
}
