/** Whether the server's "not before" still holds. */
import { useEffect, useState } from "react";
import type { Problem } from "@/net/problem";

export function useWaiting(problem: Problem | null): boolean {
  const [over, setOver] = useState<Problem | null>(null);
  const seconds = problem?.retryAfterS;
  useEffect(() => {
    if (seconds === undefined) return;
    const timer = setTimeout(() => setOver(problem), seconds * 1000);
    return () => clearTimeout(timer);
  }, [problem, seconds]);
  return seconds !== undefined && over !== problem;
}
