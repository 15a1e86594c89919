/** What went wrong, told at once to whoever listens instead of looking. */
import { explainProblem } from "@/features/status/explain-problem";
import type { Problem } from "@/net/problem";

export function Trouble({ problem }: { readonly problem: Problem | null }) {
  if (problem === null) return null;
  const { title, detail, retryAfterS } = explainProblem(problem);
  return (
    <div
      role="alert"
      className="rounded-xl border border-bad-line bg-bad-ground px-4 py-3 text-sm break-words text-ink"
    >
      <p className="font-semibold text-bad">{title}</p>
      <p>{detail}</p>
      {retryAfterS !== undefined && <p>Try again in {duration(retryAfterS)}.</p>}
    </div>
  );
}

function duration(seconds: number): string {
  if (seconds <= 90) return seconds === 1 ? "a second" : `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}
