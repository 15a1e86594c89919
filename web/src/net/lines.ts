/** Splits a stream of bytes into lines of text, whatever the chunking. Pure. */

/** A line longer than this is not one of ours: refuse it rather than fill the memory. In characters. */
export const MAX_LINE_LENGTH = 8 * 1024 * 1024;

export class LineTooLongError extends Error {
  constructor() {
    super(`expected lines of at most ${MAX_LINE_LENGTH} characters, got a longer one`);
    this.name = "LineTooLongError";
  }
}

export class LineSplitter {
  readonly #decoder = new TextDecoder("utf-8");
  #rest = "";
  #skipLineFeed = false;

  /** Returns the lines that these bytes complete, without their ends (LF, CRLF or CR). */
  push(bytes: Uint8Array): string[] {
    return this.#split(this.#decoder.decode(bytes, { stream: true }));
  }

  /** Returns what stands after the last line end; `undefined` if nothing does. Call once, at the end. */
  end(): string | undefined {
    const rest = this.#rest + this.#decoder.decode();
    this.#rest = "";
    return rest === "" ? undefined : rest;
  }

  #split(text: string): string[] {
    // A CR ends its line at once; if an LF follows, even in the next chunk, it belongs to that CR.
    let fresh = text;
    if (this.#skipLineFeed && fresh !== "") {
      if (fresh.startsWith("\n")) fresh = fresh.slice(1);
      this.#skipLineFeed = false;
    }
    if (fresh.endsWith("\r")) this.#skipLineFeed = true;
    const lines = fresh.split(/\r\n|\n|\r/);
    lines[0] = this.#rest + (lines[0] ?? "");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_LINE_LENGTH) throw new LineTooLongError();
    return lines;
  }
}
