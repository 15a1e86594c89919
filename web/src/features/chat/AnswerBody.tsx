/** The text of an answer. It is written straight into the page: React renders it once, however many tokens come. */
import { memo, type RefObject, useLayoutEffect, useRef } from "react";
import type { Message } from "@/net/home/api";
import { MarkdownWriter, renderMarkdown } from "@/render/markdown";
import { liveAnswer } from "@/store/conversation";
import type { LiveAnswer } from "@/store/live-answer";

interface Props {
  readonly bridgeId: string;
  readonly message: Message;
  /** Whether it is being written. */
  readonly active: boolean;
}

/** What stands on the page already. */
interface Written {
  content: string;
  thinking: string;
}

interface Places {
  readonly thoughts: HTMLDetailsElement;
  readonly thought: HTMLElement;
  readonly body: HTMLElement;
}

export const AnswerBody = memo(function AnswerBody({ bridgeId, message, active }: Props) {
  const thoughts = useRef<HTMLDetailsElement>(null);
  const thought = useRef<HTMLParagraphElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const written = useRef<Written | null>(null);
  const { run, content, thinking } = message;

  useLayoutEffect(() => {
    const places = placesOf(thoughts, thought, body);
    if (places === null) return;
    const live = active && run !== null ? liveAnswer(bridgeId, run) : null;
    if (live !== null) return follow(live, places, written);
    const there = written.current;
    // What was watched to its end is not made anew: somebody may be reading, or have selected some of it.
    if (there?.content !== content || there.thinking !== thinking)
      show({ content, thinking }, places, written);
    return undefined;
  }, [bridgeId, run, active, content, thinking]);

  return (
    <>
      <details ref={thoughts} hidden className="mb-3 text-sm text-muted">
        <summary className="w-fit font-medium">Thoughts before the answer</summary>
        <p ref={thought} className="mt-2 border-l-2 border-line pl-4 break-words whitespace-pre-wrap" />
      </details>
      <div ref={body} className="markdown" />
    </>
  );
});

function placesOf(
  thoughts: RefObject<HTMLDetailsElement | null>,
  thought: RefObject<HTMLElement | null>,
  body: RefObject<HTMLElement | null>,
): Places | null {
  if (thoughts.current === null || thought.current === null || body.current === null) return null;
  return { thoughts: thoughts.current, thought: thought.current, body: body.current };
}

function show(text: Written, { thoughts, thought, body }: Places, written: RefObject<Written | null>): void {
  written.current = text;
  thoughts.hidden = text.thinking === "";
  thought.textContent = text.thinking;
  renderMarkdown(body, text.content);
}

/** Follows an answer that arrives. Returns how to end that. */
function follow(
  live: LiveAnswer,
  { thoughts, thought, body }: Places,
  written: RefObject<Written | null>,
): () => void {
  const there: Written = { content: "", thinking: "" };
  written.current = there;
  thought.replaceChildren();
  let writer = new MarkdownWriter(body);
  const release = live.write({
    onThought: (text) => {
      there.thinking += text;
      thoughts.hidden = false;
      thought.append(text);
    },
    onText: (text) => {
      there.content += text;
      writer.push(text);
    },
    onRestart: () => {
      there.content = "";
      there.thinking = "";
      thoughts.hidden = true;
      thought.replaceChildren();
      writer.close();
      writer = new MarkdownWriter(body);
    },
    onEnd: () => writer.end(),
  });
  return () => {
    release();
    writer.close();
  };
}
