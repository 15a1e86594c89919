/** One message of the conversation. */
import { memo, useId, useState } from "react";
import { AnswerBody } from "@/features/chat/AnswerBody";
import { Branches } from "@/features/chat/Branches";
import { outcomeOf, progressText, troubleOf } from "@/features/chat/outcome";
import { Question } from "@/features/chat/Question";
import { CopyIcon, RetryIcon } from "@/features/icons";
import type { Message, Run } from "@/net/home/api";
import { copyText } from "@/render/clipboard";
import { isSending, isStopping, phaseOf, regenerate, useOpen } from "@/store/conversation";
import type { Figures } from "@/store/live-answer";
import { useWay } from "@/store/way";

interface Props {
  readonly bridgeId: string;
  readonly message: Message;
  readonly run: Run | null;
  /** It and the messages beside it, in their order. */
  readonly siblings: readonly Message[];
  /** The model that would answer now; `null` while nothing can be changed. */
  readonly model: string | null;
}

export const MessageView = memo(function MessageView(props: Props) {
  return props.message.role === "assistant" ? <Answer {...props} /> : <Question {...props} />;
});

function Answer({ bridgeId, message, run, siblings, model }: Props) {
  const heading = useId();
  const outcome = outcomeOf(run);
  const streaming = outcome === "streaming";
  return (
    <article aria-labelledby={heading} data-outcome={outcome} data-message={message.id} tabIndex={-1}>
      <h2 id={heading} className="sr-only">
        Answer of {message.model}
      </h2>
      <AnswerBody bridgeId={bridgeId} message={message} active={streaming} />
      {streaming && run !== null ? (
        <Progress run={run} />
      ) : (
        <Ending message={message} run={run} siblings={siblings} model={model} />
      )}
    </article>
  );
}

function Progress({ run }: { readonly run: Run }) {
  const phase = useOpen((at) => at?.view.phases.get(run.id) ?? phaseOf(at)) ?? "waiting";
  const sending = useOpen((at) => at !== null && isSending(at, run));
  const stopping = useOpen((at) => at !== null && isStopping(at, run));
  const loading = useWay((state) => state.status?.state === "loading");
  const text = sending ? "Sending…" : progressText(phase, stopping, loading);
  if (text === null) return null;
  return (
    <p className="mt-2 flex items-center gap-2 text-sm text-muted">
      <span className="size-2 shrink-0 rounded-full bg-busy motion-safe:animate-pulse" />
      {text}
    </p>
  );
}

function Ending({ message, run, siblings, model }: Omit<Props, "bridgeId">) {
  const figures = useOpen((at) => (run === null ? undefined : at?.view.figures.get(run.id)));
  const trouble = troubleOf(run, message);
  const again = () => {
    if (model !== null) regenerate(message, model);
  };
  return (
    <>
      {trouble !== null && (
        <div
          className={`mt-3 flex flex-wrap items-center justify-between gap-3 rounded-xl border px-4 py-3 text-sm ${
            trouble.mild ? "border-line bg-raised" : "border-bad-line bg-bad-ground"
          }`}
        >
          <div className="min-w-0 flex-1 basis-48">
            <p className={trouble.mild ? "font-medium" : "font-semibold text-bad"}>{trouble.title}</p>
            <p className="break-words">{trouble.detail}</p>
          </div>
          <button type="button" className="button" disabled={model === null} onClick={again}>
            <RetryIcon />
            Try again
          </button>
        </div>
      )}
      <footer className="mt-2 -ml-2 flex flex-wrap items-center gap-x-2 text-xs text-muted">
        <Branches message={message} siblings={siblings} what="answer" enabled={model !== null} />
        {message.content !== "" && <CopyAnswer text={message.content} />}
        {trouble === null && (
          <button
            type="button"
            className="icon-button disabled:text-edge"
            aria-label="Answer anew"
            title="Answer anew"
            disabled={model === null}
            onClick={again}
          >
            <RetryIcon />
          </button>
        )}
        <span className="break-all">{message.model}</span>
        <FigureList figures={figures ?? counted(run)} />
      </footer>
    </>
  );
}

/** What an engine counted when nobody here was watching. */
function counted(run: Run | null): Figures | null {
  if (run === null || run.answer_tokens === null) return null;
  return { tokens: run.answer_tokens, firstTokenMs: null, tokensPerSecond: null };
}

function FigureList({ figures }: { readonly figures: Figures | null }) {
  if (figures === null) return null;
  const { firstTokenMs, tokens, tokensPerSecond } = figures;
  return (
    <>
      <span>{`· ${tokens} ${tokens === 1 ? "token" : "tokens"}`}</span>
      {tokensPerSecond !== null && (
        <span>{`· ${tokensPerSecond.toFixed(tokensPerSecond < 100 ? 1 : 0)} tokens/s`}</span>
      )}
      {firstTokenMs !== null && <span>{`· first after ${(firstTokenMs / 1000).toFixed(2)} s`}</span>}
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
