/** Server-sent events as the HTML standard defines them (§9.2.6, "Interpreting an event stream"). Pure. */
import { LineSplitter } from "@/net/lines";

export interface ServerSentEvent {
  /** `message` if the server named none. */
  readonly event: string;
  readonly data: string;
}

export class SseParser {
  readonly #lines = new LineSplitter();
  #event = "";
  #data: string[] = [];

  /** Returns the events that these bytes complete. An event without its blank line is never returned. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    for (const line of this.#lines.push(bytes)) {
      if (line === "") this.#dispatch(events);
      else this.#field(line);
    }
    return events;
  }

  #dispatch(events: ServerSentEvent[]): void {
    if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const raw = colon < 0 ? "" : line.slice(colon + 1);
    const value = raw.startsWith(" ") ? raw.slice(1) : raw;
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
  }
}
