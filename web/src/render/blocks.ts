/**
 * Incremental lexing of Markdown that grows at its end. Pure.
 *
 * Only the unstable tail is lexed again. A block is settled once two further blocks stand after it: the one after it may
 * yet join it ("1. a", blank line, "2" becomes one list with the next character), the one after that cannot.
 */
import { Lexer, Marked, type Token } from "marked";

const UNSETTLED_BLOCKS = 2;

/** GFM; the HTML that this makes is never used without sanitising. */
export const marked = new Marked({ gfm: true });

type Definitions = Lexer["tokens"]["links"];

export interface LexedBlocks {
  /** Blocks that will not change any more, to be added to those settled before. */
  readonly settled: readonly Token[];
  /** The blocks after them, which may still change. */
  readonly tail: readonly Token[];
}

export class BlockLexer {
  #tail = "";
  #definitions: Definitions = Object.create(null) as Definitions;

  /** Takes more text. Whoever calls must have taken note of all blocks that earlier calls settled. */
  push(text: string): LexedBlocks {
    // The lexer reads CR as LF, which would make its tokens shorter than the text they came from.
    this.#tail += text.replaceAll("\r", "");
    const tokens = this.#lex();
    const count = settledCount(tokens);
    const settled = tokens.slice(0, count);
    for (const token of settled) {
      this.#tail = this.#tail.slice(token.raw.length);
      this.#define(token);
    }
    return { settled, tail: tokens.slice(count) };
  }

  /** True if a link was defined: a use before its definition is only resolved by lexing everything again. */
  get hasDefinitions(): boolean {
    return this.#lex().some((token) => token.type === "def") || Object.keys(this.#definitions).length > 0;
  }

  #lex(): Token[] {
    const lexer = new Lexer(marked.defaults);
    Object.assign(lexer.tokens.links, this.#definitions);
    return lexer.lex(this.#tail);
  }

  #define(token: Token): void {
    if (token.type !== "def") return;
    const { tag, href, title } = token as { tag: string; href: string; title?: string };
    this.#definitions[tag] ??= { href, title: title ?? null };
  }
}

function settledCount(tokens: readonly Token[]): number {
  let unsettled = 0;
  for (let index = tokens.length - 1; index >= 0; index -= 1) {
    if (tokens[index]?.type !== "space") unsettled += 1;
    if (unsettled === UNSETTLED_BLOCKS) return index;
  }
  return 0;
}
