/** Connecting a machine: its code is typed or came with the address; nothing happens without a click. */
import { useState } from "react";
import { Screen } from "@/features/frame/Screen";
import { CodeForm } from "@/features/pair/CodeForm";
import { Question } from "@/features/pair/Question";
import { normalCode } from "@/net/pairing";
import { navigate } from "@/store/location";

interface Props {
  readonly code: string | null;
  readonly request: string | null;
}

export function Pair({ code, request }: Props) {
  const [attempt, setAttempt] = useState(0);
  const id = request ?? (code === null ? null : normalCode(code));
  const ask = (next: string) => {
    setAttempt(attempt + 1);
    // The address keeps the code, so that signing in again comes back to it.
    navigate(`/pair?code=${next}`, "replace");
  };
  if (id === null) {
    return (
      <Screen title="Connect a machine">
        <p>Type the code that the machine shows in its terminal.</p>
        <CodeForm initial={code ?? ""} waiting={false} onCode={ask} />
        <p className="text-sm">
          No code yet? Run <code className="font-mono text-ink">cloudtolocalllm bridge login</code> on the
          machine that runs your models.
        </p>
      </Screen>
    );
  }
  return <Question key={`${id} ${attempt}`} id={id} code={request === null ? id : null} onCode={ask} />;
}
