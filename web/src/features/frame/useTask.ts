/** A call to the server that somebody asked for: one at a time, with its failure kept to be shown. */
import { useRef, useState } from "react";
import { type Problem, ProblemError } from "@/net/problem";
import { checkSession } from "@/store/session";

interface Task {
  readonly busy: boolean;
  readonly problem: Problem | null;
  /** Does the work, unless some is being done. Returns whether it was done. */
  readonly run: (work: () => Promise<void>) => Promise<boolean>;
  readonly forget: () => void;
}

export function useTask(): Task {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  // A second click may come before the first one has rendered.
  const working = useRef(false);
  const run = async (work: () => Promise<void>) => {
    if (working.current) return false;
    working.current = true;
    setBusy(true);
    setProblem(null);
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      setProblem(error.problem);
      if (error.problem.status === 401) void checkSession();
      return false;
    } finally {
      working.current = false;
      setBusy(false);
    }
  };
  return { busy, problem, run, forget: () => setProblem(null) };
}
