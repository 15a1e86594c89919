/** Binary HTTP (RFC 9292): messages as values, and how they are written. The format is described in the Python twin. */
import { type Bytes, concat, latin1, varint } from "@/protocol/sealed/bytes";
import { misuse } from "@/protocol/sealed/errors";
import { checkControl, checkField, checkStatus, type Fields } from "@/protocol/sealed/fields";

export interface RequestHead {
  readonly type: "request";
  readonly method: string;
  readonly scheme: string;
  readonly authority: string;
  readonly path: string;
  readonly fields: Fields;
}

export interface InformationalHead {
  readonly type: "informational";
  readonly status: number;
  readonly fields: Fields;
}

export interface ResponseHead {
  readonly type: "response";
  readonly status: number;
  readonly fields: Fields;
}

export interface Content {
  readonly type: "content";
  readonly data: Bytes;
}

/** The message is whole. */
export interface End {
  readonly type: "end";
  readonly trailers: Fields;
}

export type BinaryHttpEvent = RequestHead | InformationalHead | ResponseHead | Content | End;

/** A whole message. */
export interface Message {
  readonly head: RequestHead | ResponseHead;
  readonly content: Uint8Array;
  readonly trailers: Fields;
  readonly informational: readonly InformationalHead[];
}

export function request(method: string, path: string, fields: Fields = []): RequestHead {
  return { type: "request", method, scheme: "https", authority: "", path, fields };
}

export function message(head: RequestHead | ResponseHead, content: Uint8Array = new Uint8Array()): Message {
  return { head, content, trailers: [], informational: [] };
}

/** Returns a whole message, with known lengths or as the stream that it could have been. */
export function encodeMessage(value: Message, { streamed = false, padding = 0 } = {}): Bytes {
  const { head, content, trailers, informational } = value;
  const section = (fields: Fields): Bytes => {
    const lines = fieldLines(fields);
    return streamed ? concat(lines, Uint8Array.of(0)) : concat(varint(lines.length), lines);
  };
  const start: Bytes[] = [];
  if (head.type === "request") {
    if (informational.length > 0) throw misuse("no informational heads in a request");
    checkControl(head.method, head.scheme, head.authority, head.path);
    start.push(varint(streamed ? 2 : 0), ...[head.method, head.scheme, head.authority, head.path].map(sized));
    start.push(section(head.fields));
  } else {
    start.push(varint(streamed ? 3 : 1));
    for (const { status, fields } of [...informational, head]) {
      checkStatus(status);
      start.push(varint(status), section(fields));
    }
  }
  const body = streamed && content.length === 0 ? [] : [varint(content.length), content];
  const end = streamed ? [Uint8Array.of(0)] : [];
  return concat(...start, ...body, ...end, section(trailers), new Uint8Array(padding));
}

function fieldLines(fields: Fields): Bytes {
  return concat(
    ...fields.flatMap((field) => {
      checkField(field);
      return field.map(sized);
    }),
  );
}

function sized(text: string): Bytes {
  const bytes = latin1(text);
  return concat(varint(bytes.length), bytes);
}
