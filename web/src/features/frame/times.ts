/** Points in time for people. */
import { ago } from "@/features/status/describe";

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** @param instant - milliseconds since 1970; `null` if it is not known. */
const formatted = (format: Intl.DateTimeFormat) => (instant: number | null) =>
  instant === null ? "unknown" : format.format(instant);

export const date = formatted(DATE);
export const dateTime = formatted(DATE_TIME);
export const timeOfDay = formatted(TIME);

export function since(instant: number | null, never: string): string {
  return instant === null ? never : ago(Date.now() - instant);
}
