/** The messages of the active path. Of a long conversation, only what is near the end, or near what is looked at. */
import { type RefObject, useEffect, useLayoutEffect, useRef, useState } from "react";
import { MessageView } from "@/features/chat/MessageView";
import type { Message } from "@/net/home/api";
import { runOf, siblingsOf, type Talk } from "@/store/home/tree";
import { takeTarget } from "@/store/place";

/** Mounting hundreds of messages at once would freeze the page. */
const SHOWN_AT_FIRST = 10;
/** Mounted in one frame. */
const SHOWN_MORE = 6;
/** So far above what is seen, more is mounted before somebody scrolls there. In CSS pixels. */
const AHEAD_PX = 1_200;

interface Props {
  readonly bridgeId: string;
  readonly talk: Talk;
  readonly path: readonly Message[];
  readonly model: string | null;
  readonly scroller: RefObject<HTMLDivElement | null>;
}

export function MessageList({ bridgeId, talk, path, model, scroller }: Props) {
  const [target] = useState(() => targetIn(path));
  const [from, setFrom] = useState(() => Math.max(0, Math.min(path.length - SHOWN_AT_FIRST, target - 2)));
  const first = Math.min(from, Math.max(0, path.length - 1));
  const [all, setAll] = useState(false);
  const more = useMoreAbove(scroller, first, all, () => setFrom(Math.max(0, first - SHOWN_MORE)));
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const found = target < path.length ? path[target] : undefined;
    if (found === undefined) return;
    const element = box.current?.querySelector<HTMLElement>(`[data-message="${CSS.escape(found.id)}"]`);
    element?.scrollIntoView({ block: "center" });
    element?.focus({ preventScroll: true });
    // Once, when the conversation opens.
  }, []);
  return (
    <div ref={box} className="space-y-6">
      {first > 0 && (
        <button
          ref={more}
          type="button"
          className="button mx-auto flex"
          disabled={all}
          onClick={() => setAll(true)}
        >
          Show all earlier messages ({first})
        </button>
      )}
      {path.slice(first).map((message) => (
        <MessageView
          // While it is written, an answer has no other name than its run's.
          key={message.run ?? message.id}
          bridgeId={bridgeId}
          message={message}
          run={runOf(talk, message)}
          siblings={versionsOf(talk, message)}
          model={model}
        />
      ))}
    </div>
  );
}

const NONE: readonly Message[] = [];

/** Of most messages there is one version; then this stays the same whatever is added elsewhere. */
function versionsOf(talk: Talk, message: Message): readonly Message[] {
  const siblings = siblingsOf(talk, message);
  return siblings.length > 1 ? siblings : NONE;
}

/** Where the message stands that somebody looked for; beyond the end if there is none. */
function targetIn(path: readonly Message[]): number {
  const wanted = takeTarget();
  const found = path.findIndex(({ id }) => id === wanted);
  return found < 0 ? Number.MAX_SAFE_INTEGER : found;
}

/** Shows more when the beginning comes near, or all; a few a frame, and keeps what is looked at in its place. */
function useMoreAbove(
  scroller: RefObject<HTMLDivElement | null>,
  first: number,
  all: boolean,
  show: () => void,
): RefObject<HTMLButtonElement | null> {
  const button = useRef<HTMLButtonElement>(null);
  const latest = useRef(show);
  latest.current = show;
  const fromEnd = useRef<number | null>(null);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (box !== null && fromEnd.current !== null) box.scrollTop = box.scrollHeight - fromEnd.current;
    fromEnd.current = null;
  }, [first, scroller]);
  useEffect(() => {
    const box = scroller.current;
    const target = button.current;
    if (box === null || target === null) return;
    let frame = 0;
    const observer = new IntersectionObserver(
      ([entry]) => {
        if (!all && !entry?.isIntersecting) return;
        frame = requestAnimationFrame(() => {
          fromEnd.current = box.scrollHeight - box.scrollTop;
          latest.current();
        });
      },
      { root: box, rootMargin: `${AHEAD_PX}px 0px 0px 0px` },
    );
    observer.observe(target);
    return () => {
      cancelAnimationFrame(frame);
      observer.disconnect();
    };
    // Made anew for each step: what is in view already would not be told again.
  }, [first, all, scroller]);
  return button;
}
