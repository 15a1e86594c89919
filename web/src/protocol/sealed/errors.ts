/** What can go wrong in the sealed envelope. The names are those of the Python twin's errors. */
export type SealedErrorCode =
  /** The caller broke the contract of this folder; nothing was sealed or opened. */
  | "misuse"
  /** The bytes are not of the format, or exceed a limit. */
  | "malformed"
  /** The message ended before its final chunk: what came may not be taken for the whole. */
  | "truncated"
  /** A chunk does not open: it was changed, moved, repeated or left out, or is for another key. */
  | "forged"
  /** The message is sealed to a key that is not held, or to a pairing that is not open. */
  | "unknown-key"
  /** A signed statement is not by the pinned identity, or its signature does not hold. */
  | "untrusted"
  /** A signed statement is not valid at this time. */
  | "expired"
  /** A key configuration is older than one that was already accepted. */
  | "rollback";

/** Every error of the envelope. The text never quotes what was sealed, nor any key. */
export class SealedError extends Error {
  readonly code: SealedErrorCode;

  constructor(code: SealedErrorCode, message: string) {
    super(message);
    this.name = "SealedError";
    this.code = code;
  }
}

export function malformed(expected: string): SealedError {
  return new SealedError("malformed", `expected ${expected}`);
}

export function misuse(expected: string): SealedError {
  return new SealedError("misuse", `expected ${expected}`);
}
