/** The limits of the envelope; reasons are given in the Python twin's `limits`. */

/** Bytes of plaintext in a chunk (draft-ietf-ohai-chunked-ohttp-08 §3). */
export const MAX_CHUNK = 16384;
/** Bytes of plaintext under one key. */
export const MAX_SEALED = 2 ** 30;
/** Bytes by which AES-128-GCM lengthens a chunk. */
export const TAG = 16;
/** Seconds by which two clocks may differ. */
export const MAX_SKEW = 120;

/** Limits of one Binary HTTP message, in bytes or numbers. */
export interface MessageLimits {
  readonly control: number;
  readonly section: number;
  readonly fields: number;
  readonly informational: number;
  readonly chunk: number;
  readonly content: number;
}

export const DEFAULT_LIMITS: MessageLimits = {
  control: 16 * 1024,
  section: 64 * 1024,
  fields: 128,
  informational: 16,
  chunk: 2 ** 24,
  content: MAX_SEALED,
};

/** Bytes of the name by which a bridge finds a pairing link's secret. */
export const PAIRING_ID_BYTES = 16;
