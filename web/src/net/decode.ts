/** Reading values of unknown shape: what a server or the browser's storage hands us is checked, never trusted. */

export class DecodeError extends Error {
  constructor(expected: string, got: unknown) {
    super(
      `expected ${expected}, got ${got === null ? "null" : Array.isArray(got) ? "an array" : typeof got}`,
    );
    this.name = "DecodeError";
  }
}

export type Fields = Readonly<Record<string, unknown>>;

/** @throws DecodeError - it is no JSON object. */
export function fields(value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new DecodeError("an object", value);
  return value as Fields;
}

/** @throws DecodeError - it is no array. */
export function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new DecodeError("an array", value);
  return value;
}

/** @throws DecodeError - it is no string. */
export function text(value: unknown): string {
  if (typeof value !== "string") throw new DecodeError("a string", value);
  return value;
}

export function textOr<T>(value: unknown, otherwise: T): string | T {
  return typeof value === "string" ? value : otherwise;
}

export function numberOr<T>(value: unknown, otherwise: T): number | T {
  return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
}

/** @throws DecodeError - it is none of the choices. */
export function oneOf<T extends string>(value: unknown, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new DecodeError(`one of ${choices.join(", ")}`, value);
  return found;
}

/** A point in time as ISO 8601 text or Unix seconds, in milliseconds since 1970; `null` if it is neither. */
export function instantOrNull(value: unknown): number | null {
  if (typeof value === "number" && Number.isFinite(value)) return value * 1000;
  if (typeof value !== "string") return null;
  const parsed = Date.parse(value);
  return Number.isNaN(parsed) ? null : parsed;
}
