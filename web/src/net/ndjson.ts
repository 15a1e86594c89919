/** Newline-delimited JSON, as Ollama's own API streams it (`/ollama/api/chat`). Pure. */
import { LineSplitter } from "@/net/lines";

export class NdjsonParser {
  readonly #lines = new LineSplitter();

  /**
   * Returns the values that these bytes complete.
   *
   * @throws SyntaxError - a line is not JSON.
   */
  push(bytes: Uint8Array): unknown[] {
    return this.#lines.push(bytes).filter(isFilled).map(parse);
  }

  /** Returns the value of a last line without a line end, if there is one. Call once, at the end. */
  end(): unknown[] {
    const rest = this.#lines.end();
    return rest !== undefined && isFilled(rest) ? [parse(rest)] : [];
  }
}

function isFilled(line: string): boolean {
  return line.trim() !== "";
}

function parse(line: string): unknown {
  return JSON.parse(line) as unknown;
}
