/** The text of an answer. It is written straight into the page: React renders it once, however many tokens come. */
import { memo, useLayoutEffect, useRef } from "react";
import { MarkdownWriter, renderMarkdown } from "@/render/markdown";
import { liveAnswer } from "@/store/conversation";
import type { AnswerMessage } from "@/store/messages";

interface Props {
  readonly message: AnswerMessage;
}

export const AnswerBody = memo(AnswerBodyOnce, (before, after) => before.message.id === after.message.id);

function AnswerBodyOnce({ message }: Props) {
  const thoughts = useRef<HTMLDetailsElement>(null);
  const thought = useRef<HTMLParagraphElement>(null);
  const body = useRef<HTMLDivElement>(null);

  useLayoutEffect(() => {
    if (thoughts.current === null || thought.current === null || body.current === null) return;
    return show(message, thoughts.current, thought.current, body.current);
  }, [message]);

  return (
    <>
      <details ref={thoughts} hidden className="mb-3 text-sm text-muted">
        <summary className="w-fit font-medium">Thoughts before the answer</summary>
        <p ref={thought} className="mt-2 border-l-2 border-line pl-4 break-words whitespace-pre-wrap" />
      </details>
      <div ref={body} className="markdown" />
    </>
  );
}

/** Shows a message, and follows it if it still arrives. Returns how to end that. */
function show(
  message: AnswerMessage,
  thoughts: HTMLDetailsElement,
  thought: HTMLElement,
  body: HTMLElement,
): (() => void) | undefined {
  const live = liveAnswer(message.id);
  thought.replaceChildren();
  const think = (text: string) => {
    thoughts.hidden = false;
    thought.append(text);
  };
  if (live === null) {
    if (message.thought !== "") think(message.thought);
    renderMarkdown(body, message.text);
    return undefined;
  }
  const writer = new MarkdownWriter(body);
  const release = live.write({
    onThought: think,
    onText: (text) => writer.push(text),
    onEnd: () => writer.end(),
  });
  return () => {
    release();
    writer.close();
  };
}
