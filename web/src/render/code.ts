/** A code block with its language and a copy button. */
import { copyText } from "@/render/clipboard";

const SAY_COPIED_MS = 1_500;

export interface CodeFigure {
  readonly element: HTMLElement;
  /** Shows this text and language; text that only grew is appended, so that a selection survives. */
  update(text: string, language: string): void;
}

export function codeFigure(): CodeFigure {
  const element = document.createElement("figure");
  element.className = "code";
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  const pre = document.createElement("pre");
  // A wide block scrolls; without this no keyboard could.
  pre.tabIndex = 0;
  const code = document.createElement("code");
  const content = document.createTextNode("");
  code.append(content);
  pre.append(code);
  caption.append(
    name,
    copyButton(() => content.data),
  );
  element.append(caption, pre);
  return {
    element,
    update(text, language) {
      const label = language.split(/\s/, 1)[0] || "text";
      if (name.textContent !== label) name.textContent = label;
      if (text === content.data) return;
      if (text.startsWith(content.data)) content.appendData(text.slice(content.data.length));
      else content.data = text;
    },
  };
}

function copyButton(text: () => string): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy code");
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(text())) ? "Copied" : "Not copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, SAY_COPIED_MS);
  });
  return button;
}
