/** Where the focus goes when what had it is removed. */
import { type RefObject, useEffect, useRef, useState } from "react";

/** Gives the focus to an element when what stood in its place is closed. */
export function useFocusBack<T extends HTMLElement>(open: boolean): RefObject<T | null> {
  const element = useRef<T>(null);
  const before = useRef(open);
  useEffect(() => {
    if (before.current && !open) element.current?.focus();
    before.current = open;
  }, [open]);
  return element;
}

interface Said {
  readonly text: string;
  readonly say: (text: string) => void;
  /** Of the element that shows the text. */
  readonly ref: RefObject<HTMLParagraphElement | null>;
}

/** A sentence about what was done; it takes the focus when the button that did it goes. */
export function useSaid(): Said {
  const ref = useRef<HTMLParagraphElement>(null);
  const [said, setSaid] = useState({ text: "" });
  useEffect(() => {
    if (said.text !== "") ref.current?.focus();
  }, [said]);
  return { text: said.text, say: (text) => setSaid({ text }), ref };
}
