/** Copies a text, and says that it did. */
import { useEffect, useState } from "react";
import { CopyIcon } from "@/features/icons";
import { copyText } from "@/render/clipboard";

const SAID_FOR_MS = 2_000;

interface Props {
  readonly text: string;
  /** What is copied, after "Copy". */
  readonly what: string;
}

export function CopyButton({ text, what }: Props) {
  const [said, setSaid] = useState<string | null>(null);
  useEffect(() => {
    if (said === null) return;
    const timer = setTimeout(() => setSaid(null), SAID_FOR_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const copy = async () => setSaid((await copyText(text)) ? "Copied" : "Select it and copy it by hand");
  return (
    <span className="inline-flex flex-wrap items-center gap-2">
      <button type="button" className="button" aria-label={`Copy ${what}`} onClick={() => void copy()}>
        <CopyIcon />
        Copy
      </button>
      <span role="status" className="text-sm text-muted">
        {said}
      </span>
    </span>
  );
}

/** A command to be run in a terminal, with its button. */
export function Command({ text, what }: Props) {
  return (
    <div className="space-y-2">
      <code className="prompt break-all">{text}</code>
      <CopyButton text={text} what={what} />
    </div>
  );
}
