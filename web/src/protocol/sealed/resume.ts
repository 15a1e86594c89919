/** How a client takes up an answer where it broke off: the fields; described in the Python twin. */
import { type Bytes, toBase64Url } from "@/protocol/sealed/bytes";
import { malformed } from "@/protocol/sealed/errors";
import { type Fields, single } from "@/protocol/sealed/fields";

export const EXCHANGE_BYTES = 16;

/** Returns the fields of a request for an answer from an offset on, in bytes of content without padding. */
export function resumeFields(exchange: Bytes, offset = 0): Fields {
  const named = ["c2l-exchange", toBase64Url(exchange)] as const;
  return offset > 0 ? [named, ["c2l-offset", `${offset}`]] : [named];
}

/** Returns where a response's content begins; 0 when it does not say. */
export function readOffset(fields: Fields): number {
  const offset = single(fields, "c2l-offset") ?? "0";
  if (!/^(0|[1-9]\d{0,15})$/.test(offset) || !Number.isSafeInteger(Number(offset))) {
    throw malformed("an offset of 0 to 2^53 - 1");
  }
  return Number(offset);
}
