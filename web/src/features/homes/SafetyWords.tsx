/** Eight words that are the same at both ends only if nobody stands between. */
import { useEffect, useState } from "react";
import type { Bytes } from "@/protocol/sealed/bytes";
import { fromBase64Url } from "@/protocol/sealed/bytes";

interface Props {
  /** Of the bridge's identity. */
  readonly fingerprint: Bytes;
  readonly deviceId: string;
}

export function SafetyWords({ fingerprint, deviceId }: Props) {
  const [words, setWords] = useState<readonly string[] | null>(null);
  useEffect(() => {
    let left = false;
    void wordsOf(fingerprint, deviceId).then((made) => {
      if (!left) setWords(made);
    });
    return () => {
      left = true;
    };
  }, [fingerprint, deviceId]);
  if (words === null) return <p className="appear-late text-sm text-muted">Working the words out…</p>;
  return (
    <ol
      aria-label="Safety words"
      className="prompt grid grid-cols-2 gap-x-4 gap-y-1"
      data-testid="safety-words"
    >
      {words.map((word, index) => (
        // A word may stand twice; its place is what counts.
        <li key={index} className="flex gap-2">
          <span className="w-4 text-right text-muted select-none">{index + 1}</span>
          {word}
        </li>
      ))}
    </ol>
  );
}

async function wordsOf(fingerprint: Bytes, deviceId: string): Promise<string[]> {
  // The list of words is as large as everything else here together.
  const { safetyWords } = await import("@/protocol/sealed/safety-words");
  return await safetyWords(fingerprint, fromBase64Url(deviceId, "a device's id", 32));
}
