/** Which of several versions of a message is shown. */
import { BackIcon, ForwardIcon } from "@/features/icons";
import type { Message } from "@/net/home/api";
import { choose } from "@/store/conversation";

interface Props {
  readonly message: Message;
  readonly siblings: readonly Message[];
  readonly what: "answer" | "question";
  readonly enabled: boolean;
}

export function Branches({ message, siblings, what, enabled }: Props) {
  if (siblings.length < 2) return null;
  const place = siblings.findIndex(({ id }) => id === message.id);
  const step = (by: number) => {
    const to = siblings[place + by];
    if (to !== undefined) choose(to);
  };
  return (
    <span className="inline-flex items-center text-xs text-muted">
      <button
        type="button"
        className="icon-button disabled:text-edge"
        aria-label={`Previous ${what}`}
        disabled={!enabled || place <= 0}
        onClick={() => step(-1)}
      >
        <BackIcon />
      </button>
      <span>
        <span className="sr-only">{what === "answer" ? "Answer" : "Question"} </span>
        {place + 1} <span aria-hidden="true">/</span>
        <span className="sr-only">of</span> {siblings.length}
      </span>
      <button
        type="button"
        className="icon-button disabled:text-edge"
        aria-label={`Next ${what}`}
        disabled={!enabled || place < 0 || place >= siblings.length - 1}
        onClick={() => step(1)}
      >
        <ForwardIcon />
      </button>
    </span>
  );
}
