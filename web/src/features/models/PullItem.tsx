/** A model that is being fetched: how far it is, and stopping it. It goes on whoever watches. */
import { useEffect, useRef, useState } from "react";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { type Progress, stopPull } from "@/net/home/api";
import { followPull } from "@/net/home/following-pull";
import { browserWorld } from "@/net/home/world";
import { type Problem, ProblemError } from "@/net/problem";
import type { Home } from "@/store/homes";

interface Props {
  readonly home: Home;
  readonly model: string;
  readonly onDone: () => void;
  readonly onDismiss: () => void;
}

export function PullItem({ home, model, onDone, onDismiss }: Props) {
  const [progress, setProgress] = useState<Progress | null>(null);
  const [refusal, setRefusal] = useState<Problem | null>(null);
  const { busy, problem, run } = useTask();
  const done = useRef(onDone);
  done.current = onDone;
  const { transport } = home;
  useEffect(() => {
    const leaving = new AbortController();
    followPull(transport, model, setProgress, leaving.signal, browserWorld).then(
      () => done.current(),
      (error: unknown) => {
        if (leaving.signal.aborted) return;
        if (!(error instanceof ProblemError)) throw error;
        setRefusal(error.problem);
      },
    );
    return () => leaving.abort();
  }, [transport, model]);
  const going = refusal === null && (progress === null || progress.state === "pulling");
  return (
    <li className="card space-y-2">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <span className="min-w-0 break-all">{model}</span>
        {going ? (
          <button
            type="button"
            className="button"
            aria-label={`Stop fetching ${model}`}
            disabled={busy}
            onClick={() => void run(async () => void (await stopPull(transport, { model })))}
          >
            Stop
          </button>
        ) : (
          <button
            type="button"
            className="button"
            aria-label={`Dismiss what became of ${model}`}
            onClick={onDismiss}
          >
            Dismiss
          </button>
        )}
      </div>
      {going && <Bar model={model} progress={progress} />}
      <p role="status" className="text-sm text-muted empty:hidden">
        {ending(progress)}
      </p>
      <Trouble problem={refusal ?? problem ?? failure(progress)} />
    </li>
  );
}

function Bar({ model, progress }: { readonly model: string; readonly progress: Progress | null }) {
  const total = progress?.total_bytes ?? 0;
  const have = progress?.done_bytes ?? 0;
  return (
    <div className="space-y-1 text-sm text-muted">
      <progress
        aria-label={`How much of ${model} is there`}
        className="w-full"
        {...(total > 0 && { value: have, max: total })}
      />
      <p className="break-words">
        {progress?.status || "Beginning…"}
        {total > 0 && ` (${megabytes(have)} of ${megabytes(total)} MB)`}
      </p>
    </div>
  );
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
}

function ending(progress: Progress | null): string {
  if (progress?.state === "done") return "It is there.";
  if (progress?.state === "stopped") return "Stopped. What is there already is kept for the next time.";
  return "";
}

function failure(progress: Progress | null): Problem | null {
  if (progress?.state !== "failed") return null;
  return {
    slug: progress.reason ?? null,
    title: "The model could not be fetched",
    detail: progress.detail ?? "",
    status: 0,
  };
}
