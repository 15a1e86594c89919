/** Reading Binary HTTP (RFC 9292) from any pieces of its bytes. The states are those of the Python twin's table. */
import type { BinaryHttpEvent, Message } from "@/protocol/sealed/bhttp";
import { ByteQueue, type Bytes, concat, fromLatin1, isZero } from "@/protocol/sealed/bytes";
import { malformed, misuse, SealedError } from "@/protocol/sealed/errors";
import { checkControl, checkField, checkStatus, type Field, type Fields } from "@/protocol/sealed/fields";
import { DEFAULT_LIMITS, type MessageLimits } from "@/protocol/sealed/limits";

export type Kind = "request" | "response";

type State = "indicator" | "control" | "status" | "headers" | "content" | "trailers" | "padding" | "closed";

/** One message. Call receive with its bytes, then end. */
export class BinaryHttpDecoder {
  readonly #kind: Kind;
  readonly #limits: MessageLimits;
  readonly #queue = new ByteQueue();
  #state: State = "indicator";
  #streamed = false;
  #control: string[] = [];
  #status = 0;
  #informational = 0;
  #fields: Field[] = [];
  #sectionSize = 0;
  /** Bytes of a section of known length still to come; undefined before its length, and in a stream. */
  #sectionLeft: number | undefined;
  #contentLeft = 0;
  #contentSize = 0;
  #contentBegun = false;
  #trailers: Fields = [];

  constructor(kind: Kind, limits: MessageLimits = DEFAULT_LIMITS) {
    this.#kind = kind;
    this.#limits = limits;
  }

  /**
   * Takes bytes, and returns what they complete.
   *
   * @throws SealedError - "malformed": they are not such a message, or exceed a limit; nothing more can be read.
   */
  receive(bytes: Uint8Array): BinaryHttpEvent[] {
    const state = this.#checkOpen();
    this.#queue.push(bytes);
    const events: BinaryHttpEvent[] = [];
    this.#state = "closed"; // until all of this has worked
    const resumed = this.#run(state, events);
    this.#state = resumed;
    return events;
  }

  /**
   * Takes the end of the bytes, and returns what is completed by it; the last event is "end".
   *
   * @throws SealedError - "truncated": the message is not whole.
   */
  end(): BinaryHttpEvent[] {
    const state = this.#checkOpen();
    this.#state = "closed";
    const begun =
      this.#queue.length > 0 ||
      this.#fields.length > 0 ||
      this.#sectionLeft !== undefined ||
      (state === "content" && this.#contentBegun);
    const mayEnd = /headers|content|trailers|padding/.test(state);
    if (begun || !mayEnd || (state === "headers" && this.#isInformational)) {
      throw new SealedError("truncated", "expected a whole message, got a part of one");
    }
    const events: BinaryHttpEvent[] = [];
    if (state === "headers") this.#endSection(state, events);
    events.push({ type: "end", trailers: this.#trailers });
    return events;
  }

  get #isInformational(): boolean {
    return this.#status >= 100 && this.#status <= 199;
  }

  #checkOpen(): State {
    if (this.#state === "closed") throw misuse("no more calls after the end or an error");
    return this.#state;
  }

  #run(from: State, events: BinaryHttpEvent[]): State {
    let state = from;
    for (;;) {
      const next = this.#step(state, events);
      if (next === undefined) return state;
      state = next;
    }
  }

  /** Takes one element; returns the state after it, or undefined when it is not all there. */
  #step(state: State, events: BinaryHttpEvent[]): State | undefined {
    switch (state) {
      case "content":
        return this.#stepContent(events);
      case "headers":
      case "trailers":
        return this.#stepSection(state, events);
      case "control":
        return this.#stepControl();
      case "padding":
        if (!isZero(this.#queue.take(this.#queue.length)))
          throw malformed("nothing but zero bytes after the message");
        return undefined;
      default:
        return this.#stepNumber(state);
    }
  }

  #number(): number | undefined {
    const found = this.#queue.varint(0);
    if (found) this.#queue.skip(found[1]);
    return found?.[0];
  }

  #stepNumber(state: State): State | undefined {
    const value = this.#number();
    if (value === undefined) return undefined;
    const isRequest = this.#kind === "request";
    if (state === "indicator") {
      if (value > 3 || (value % 2 === 0) !== isRequest)
        throw malformed(`the framing indicator of a ${this.#kind}`);
      this.#streamed = value > 1;
      return isRequest ? "control" : "status";
    }
    checkStatus(value);
    this.#status = value;
    if (this.#isInformational) this.#informational += 1;
    if (this.#informational > this.#limits.informational) throw malformed("fewer informational heads");
    return "headers";
  }

  #stepControl(): State | undefined {
    const part = this.#span(0, this.#limits.control, "a part of the control data");
    if (!part) return undefined;
    this.#control.push(fromLatin1(this.#queue.slice(...part)));
    this.#queue.skip(part[1]);
    const [method = "", scheme = "", authority = "", path] = this.#control;
    if (path === undefined) return "control";
    checkControl(method, scheme, authority, path);
    return "headers";
  }

  #stepSection(state: State, events: BinaryHttpEvent[]): State | undefined {
    if (!this.#streamed && this.#sectionLeft === undefined) {
      const left = this.#number();
      if (left === undefined) return undefined;
      if (left > this.#limits.section) throw malformed("a field section within its limit");
      this.#sectionLeft = left;
    }
    if (this.#sectionLeft === 0) return this.#endSection(state, events);
    const length = this.#queue.varint(0);
    if (length?.[0] === 0) {
      if (!this.#streamed) throw malformed("a field name of at least one byte");
      this.#queue.skip(length[1]);
      return this.#endSection(state, events);
    }
    return this.#fieldLine() ? state : undefined;
  }

  #fieldLine(): boolean {
    const room = this.#sectionLeft ?? this.#limits.section - this.#sectionSize;
    const name = this.#span(0, room, "a field name");
    const value = name && this.#span(name[1], room, "a field value");
    if (!name || !value) return false;
    const line: Field = [fromLatin1(this.#queue.slice(...name)), fromLatin1(this.#queue.slice(...value))];
    checkField(line);
    this.#queue.skip(value[1]);
    this.#sectionSize += value[1];
    if (this.#sectionLeft !== undefined) this.#sectionLeft -= value[1];
    this.#fields.push(line);
    if (this.#fields.length > this.#limits.fields) throw malformed("fewer fields");
    return true;
  }

  /** Returns where bytes are that their length precedes, or undefined when they are not all there. */
  #span(at: number, most: number, what: string): readonly [from: number, to: number] | undefined {
    const found = this.#queue.varint(at);
    if (!found) return undefined;
    const end = found[1] + found[0];
    if (end > most) throw malformed(`${what} within its limit`);
    return end <= this.#queue.length ? [found[1], end] : undefined;
  }

  #endSection(state: State, events: BinaryHttpEvent[]): State {
    const fields = this.#fields;
    this.#fields = [];
    this.#sectionSize = 0;
    this.#sectionLeft = undefined;
    if (state === "trailers") {
      this.#trailers = fields;
      return "padding";
    }
    if (this.#kind === "request") {
      const [method = "", scheme = "", authority = "", path = ""] = this.#control;
      events.push({ type: "request", method, scheme, authority, path, fields });
      return "content";
    }
    const type = this.#isInformational ? "informational" : "response";
    events.push({ type, status: this.#status, fields });
    return type === "informational" ? "status" : "content";
  }

  #stepContent(events: BinaryHttpEvent[]): State | undefined {
    if (this.#contentLeft > 0) {
      if (this.#queue.length === 0) return undefined;
      const data = this.#queue.take(this.#contentLeft);
      this.#contentLeft -= data.length;
      events.push({ type: "content", data });
      return this.#contentLeft === 0 && !this.#streamed ? "trailers" : "content";
    }
    const size = this.#number();
    if (size === undefined) return undefined;
    this.#contentSize += size;
    if (this.#contentSize > this.#limits.content || (this.#streamed && size > this.#limits.chunk)) {
      throw malformed("content within its limit");
    }
    this.#contentLeft = size;
    this.#contentBegun = true;
    return size === 0 ? "trailers" : "content";
  }
}

/** Returns the message that its events make; the last of them must be "end". */
export function collect(events: readonly BinaryHttpEvent[]): Message {
  const content: Bytes[] = [];
  const informational = [];
  let head: Message["head"] | undefined;
  let trailers: Fields = [];
  for (const event of events) {
    if (event.type === "content") content.push(event.data);
    else if (event.type === "informational") informational.push(event);
    else if (event.type === "end") trailers = event.trailers;
    else head = event;
  }
  if (!head) throw misuse("the events of a whole message");
  return { head, content: concat(...content), trailers, informational };
}

export function decodeMessage(bytes: Uint8Array, kind: Kind, limits?: MessageLimits): Message {
  const decoder = new BinaryHttpDecoder(kind, limits);
  return collect([...decoder.receive(bytes), ...decoder.end()]);
}
