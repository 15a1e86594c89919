/** Compact JWS (RFC 7515) with one algorithm and an exact header, as key statements are. */
import { type Bytes, fromBase64Url, toBase64Url, utf8 } from "@/protocol/sealed/bytes";
import { malformed } from "@/protocol/sealed/errors";

export type JsonObject = Readonly<Record<string, unknown>>;

export interface Jws {
  readonly header: JsonObject;
  readonly claims: JsonObject;
  readonly signature: Bytes;
  readonly signed: Bytes;
}

/** Splits a text; nothing of it is verified yet. */
export function readJws(text: string, what: string, maxLength: number): Jws {
  const [header, claims, signature, ...more] = text.split(".");
  if (text.length > maxLength || !header || !claims || !signature || more.length > 0) throw malformed(what);
  return {
    header: readObject(header, what),
    claims: readObject(claims, what),
    signature: fromBase64Url(signature, `the signature of ${what}`, 64),
    signed: utf8(`${header}.${claims}`),
  };
}

export async function writeJws(
  header: JsonObject,
  claims: JsonObject,
  sign: (message: Bytes) => Promise<Bytes>,
): Promise<string> {
  const signed = [header, claims].map((part) => toBase64Url(utf8(JSON.stringify(part)))).join(".");
  return `${signed}.${toBase64Url(await sign(utf8(signed)))}`;
}

/** Tells whether an object has exactly these members. */
export function hasExactly(value: unknown, members: readonly string[]): value is JsonObject {
  if (typeof value !== "object" || value === null) return false;
  return Object.keys(value).sort().join() === [...members].sort().join();
}

export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readObject(part: string, what: string): JsonObject {
  let value: unknown;
  const bytes = fromBase64Url(part, `a part of ${what}`);
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw malformed(`JSON in ${what}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw malformed(`an object in ${what}`);
  return value as JsonObject;
}
