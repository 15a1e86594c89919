/** Readers of values, and readers made of readers. Pure. */
import { DecodeError, list } from "@/net/decode";

export type Reader<T> = (value: unknown) => T;

/** @throws DecodeError - it is no finite number. */
export function number(value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new DecodeError("a number", value);
  return value;
}

/** @throws DecodeError - it is neither true nor false. */
export function flag(value: unknown): boolean {
  if (typeof value !== "boolean") throw new DecodeError("true or false", value);
  return value;
}

export function orNull<T>(read: Reader<T>): Reader<T | null> {
  return (value) => (value === null ? null : read(value));
}

/** For a member that may be missing. */
export function maybe<T>(read: Reader<T>): Reader<T | undefined> {
  return (value) => (value === undefined ? undefined : read(value));
}

export function listOf<T>(read: Reader<T>): Reader<readonly T[]> {
  return (value) => list(value).map(read);
}
