import { type RefObject, useCallback, useEffect, useRef, useState } from "react";

/** So near to the end counts as being there. In CSS pixels. */
const NEAR_PX = 48;

interface StickToEnd {
  readonly scroller: RefObject<HTMLDivElement | null>;
  readonly content: RefObject<HTMLDivElement | null>;
  /** False once somebody has scrolled up to read. */
  readonly sticking: boolean;
  readonly jump: () => void;
}

/** Keeps the end of a growing list in view, until somebody scrolls up; at the end again, it takes hold again. */
export function useStickToEnd(): StickToEnd {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const held = useRef(true);
  const [sticking, setSticking] = useState(true);

  const hold = useCallback((value: boolean) => {
    held.current = value;
    setSticking(value);
  }, []);

  const jump = useCallback(() => {
    hold(true);
    const box = scroller.current;
    if (box !== null) box.scrollTop = box.scrollHeight;
  }, [hold]);

  useEffect(() => {
    const box = scroller.current;
    const inner = content.current;
    if (box === null || inner === null) return;
    let last = box.scrollTop;
    const onScroll = () => {
      const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;
      // Growing content never moves the position up; only people do. They win even close to the end.
      if (box.scrollTop < last - 1) hold(box.scrollHeight - box.scrollTop - box.clientHeight < 2);
      else if (near) hold(true);
      last = box.scrollTop;
    };
    const observer = new ResizeObserver(() => {
      if (held.current) box.scrollTop = box.scrollHeight;
    });
    observer.observe(inner);
    observer.observe(box);
    box.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      box.removeEventListener("scroll", onScroll);
    };
  }, [hold]);

  return { scroller, content, sticking, jump };
}
