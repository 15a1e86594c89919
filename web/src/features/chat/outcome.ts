/** How an answer stands, in words. Pure. */
import type { Message, Run } from "@/net/home/api";
import { isActive } from "@/store/home/tree";
import type { Phase } from "@/store/live-answer";

export type Outcome = "streaming" | "done" | "stopped" | "failed" | "interrupted";

/** What was written without a run, or longer ago than runs are told of, is done. */
export function outcomeOf(run: Run | null): Outcome {
  if (run === null) return "done";
  return isActive(run) ? "streaming" : (run.state as Outcome);
}

export interface Trouble {
  readonly title: string;
  readonly detail: string;
  /** Nobody has to worry. */
  readonly mild: boolean;
}

/** What is to be told of an answer besides its text; `null` for nothing. */
export function troubleOf(run: Run | null, message: Pick<Message, "content" | "thinking">): Trouble | null {
  const written = message.content !== "";
  switch (outcomeOf(run)) {
    case "stopped":
      return { title: "Stopped", detail: "This answer was stopped.", mild: true };
    case "interrupted":
      return {
        title: "This answer was interrupted",
        detail: run?.detail || "The bridge ended while it was being written. All that was written is here.",
        mild: false,
      };
    case "failed": {
      const title = reasonTitle(run?.reason ?? "");
      const detail = run?.detail ?? "";
      if (!written) return { title, detail, mild: false };
      return { title: "This answer was cut short", detail: `${title}. ${detail}`, mild: false };
    }
    case "done":
      if (run?.reason === "length") return { title: "Cut at its limit", detail: run.detail, mild: true };
      return written || run === null
        ? null
        : { title: "No answer", detail: "The model ended without a word.", mild: true };
    case "streaming":
      return null;
  }
}

const REASONS: Readonly<Record<string, string>> = {
  "engine-unreachable": "The model engine at home does not answer",
  "engine-error": "The model engine broke off",
  "model-not-found": "No engine at home has this model",
  "home-full": "The home store has no room",
  "too-large": "The conversation is too large for the engine",
  "timed-out": "The engine took too long",
  overloaded: "Too much at once",
};

function reasonTitle(reason: string): string {
  return REASONS[reason] ?? "No answer";
}

const LOADING = "Loading the model into memory. The first answer takes longer…";

/** @param loading - the server says that an engine loads a model. */
export function progressText(phase: Phase, stopping: boolean, loading: boolean): string | null {
  if (phase === "reattaching")
    return "The connection broke. The answer goes on at home, and here as soon as the connection is back…";
  if (stopping) return "Stopping…";
  switch (phase) {
    case "waiting":
      return loading ? LOADING : "Waiting for the first word…";
    case "loading":
      return LOADING;
    case "returning":
      return "The bridge at home was started anew. The model gets back to this place first, and then goes on…";
    case "thinking":
      return "Thinking…";
    case "writing":
      return null;
  }
}

/** Said once to whoever listens instead of looking. */
export function announcement(run: Run, message: Message): string {
  const trouble = troubleOf(run, message);
  return trouble === null ? "Answer complete." : `${trouble.title}.`;
}
