/** Writes Markdown that grows into the DOM, at most once a frame and with a bounded share of the time. */
import type { Token, Tokens } from "marked";
import { BlockLexer, marked } from "@/render/blocks";
import { type CodeFigure, codeFigure } from "@/render/code";
import { sanitise } from "@/render/sanitise";

/** After a flush of N ms the next one waits this many times N: the page stays free for people three quarters of the time. */
const REST_FACTOR = 3;
/** Answers stand under the page's h1 and each message's h2. */
const HEADING_OFFSET = 2;

marked.use({
  renderer: {
    heading({ tokens, depth }) {
      const name = `h${Math.min(6, depth + HEADING_OFFSET)}`;
      return `<${name}>${this.parser.parseInline(tokens)}</${name}>`;
    },
    // Blocks inside lists and quotes; those at the top never come here.
    code: ({ text, lang }) =>
      `<pre data-lang="${escapeHtml(lang ?? "")}"><code>${escapeHtml(text)}</code></pre>`,
  },
});

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

interface Block {
  readonly type: string;
  readonly raw: string;
  /** `null` for blocks that show nothing, such as link definitions. */
  readonly element: HTMLElement | null;
  readonly code: CodeFigure | null;
}

export class MarkdownWriter {
  #lexer = new BlockLexer();
  #source = "";
  #pending = "";
  #tail: Block[] = [];
  #frame = 0;
  #restUntil = 0;
  /** The depth of the first heading, once it will not change any more. */
  #topDepth: number | null = null;

  constructor(readonly root: HTMLElement) {
    root.replaceChildren();
  }

  /** Takes more text; it is shown with the next frame that has time for it. */
  push(text: string): void {
    this.#pending += text;
    if (this.#frame === 0) this.#frame = requestAnimationFrame(this.#onFrame);
  }

  /** Shows all text now. */
  end(): void {
    this.close();
    this.#flush();
    if (!this.#lexer.hasDefinitions) return;
    this.#lexer = new BlockLexer();
    this.#tail = [];
    this.root.replaceChildren();
    // Definitions first: references are then resolved wherever they stand.
    const all = marked.lexer(this.#source);
    this.#place(all);
  }

  /** Shows nothing further. */
  close(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  readonly #onFrame = (now: number): void => {
    if (now < this.#restUntil) {
      this.#frame = requestAnimationFrame(this.#onFrame);
      return;
    }
    this.#frame = 0;
    const started = performance.now();
    this.#flush();
    const ended = performance.now();
    this.#restUntil = ended + (ended - started) * REST_FACTOR;
  };

  #flush(): void {
    if (this.#pending === "") return;
    this.#source += this.#pending;
    const { settled, tail } = this.#lexer.push(this.#pending);
    this.#pending = "";
    this.#place([...settled, ...tail]);
    this.#topDepth ??= firstDepth(settled);
    this.#tail.splice(0, settled.length);
  }

  /** Makes the unsettled end of the document show these tokens; blocks whose source is the same stay untouched. */
  #place(tokens: readonly Token[]): void {
    const topDepth = this.#topDepth ?? firstDepth(tokens) ?? 1;
    for (const dropped of this.#tail.splice(tokens.length)) dropped.element?.remove();
    tokens.forEach((token, index) => {
      const before = this.#tail[index];
      if (before?.raw === token.raw && before.type === token.type) return;
      const block = renderBlock(token, before, topDepth);
      this.#tail[index] = block;
      if (block.element === before?.element) return;
      if (block.element === null) before?.element?.remove();
      else if (before?.element) before.element.replaceWith(block.element);
      else this.root.insertBefore(block.element, this.#next(index));
    });
  }

  #next(index: number): HTMLElement | null {
    return this.#tail.slice(index + 1).find((block) => block.element !== null)?.element ?? null;
  }
}

function firstDepth(tokens: readonly Token[]): number | null {
  const heading = tokens.find((token) => token.type === "heading") as Tokens.Heading | undefined;
  return heading?.depth ?? null;
}

/** Makes the answer's first heading its highest, whichever level the model began with. */
function raised(token: Token, topDepth: number): Token {
  if (token.type !== "heading") return token;
  return { ...(token as Tokens.Heading), depth: Math.max(1, (token as Tokens.Heading).depth - topDepth + 1) };
}

function renderBlock(token: Token, before: Block | undefined, topDepth: number): Block {
  const { raw, type } = token;
  if (token.type === "space" || token.type === "def") return { type, raw, element: null, code: null };
  if (token.type === "code") {
    const { text, lang } = token as Tokens.Code;
    const code = before?.code ?? codeFigure();
    code.update(text, lang ?? "");
    return { type, raw, element: code.element, code };
  }
  const element = document.createElement("div");
  element.append(sanitise(marked.parser([raised(token, topDepth)])));
  for (const pre of element.querySelectorAll("pre")) frameCode(pre);
  for (const table of element.querySelectorAll("table")) frameTable(table);
  return { type, raw, element, code: null };
}

function frameCode(pre: HTMLPreElement): void {
  const code = codeFigure();
  code.update(pre.textContent, pre.dataset["lang"] ?? "");
  pre.replaceWith(code.element);
}

function frameTable(table: HTMLTableElement): void {
  const frame = document.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  table.replaceWith(frame);
  frame.append(table);
}

/** Shows a whole text at once. */
export function renderMarkdown(root: HTMLElement, text: string): void {
  const writer = new MarkdownWriter(root);
  writer.push(text);
  writer.end();
}
