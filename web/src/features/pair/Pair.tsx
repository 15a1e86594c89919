/** Pairing: this browser with a home, by a link or by words; or a machine with the account, by its code or request. */
import { useCallback, useState } from "react";
import { Link } from "@/features/frame/Link";
import { Screen } from "@/features/frame/Screen";
import { AskHome } from "@/features/pair/AskHome";
import { CodeForm } from "@/features/pair/CodeForm";
import { PairBrowser, Paired } from "@/features/pair/PairBrowser";
import { Question } from "@/features/pair/Question";
import { normalCode } from "@/net/pairing";
import { navigate } from "@/store/location";
import { forgetPairingLink, usePairingLink } from "@/store/pairing-link";

interface Props {
  readonly user: string | null;
  readonly code: string | null;
  readonly request: string | null;
  readonly home: string | null;
}

export function Pair({ user, code, request, home }: Props) {
  const taken = usePairingLink((state) => state.taken);
  const [paired, setPaired] = useState<string | null>(null);
  const onDone = useCallback((bridgeId: string) => {
    setPaired(bridgeId);
    forgetPairingLink();
  }, []);
  // What was asked for in so many words comes before what the tab still keeps.
  const named = code !== null || request !== null;
  if (taken !== null && !named)
    return <PairBrowser key={keyOf(taken.link?.secret)} user={user} link={taken.link} onDone={onDone} />;
  if (paired !== null && !named) return <Paired bridgeId={paired} />;
  if (home !== null && !named) return <AskHome key={home} user={user} bridgeId={home} onDone={onDone} />;
  return <PairMachine code={code} request={request} />;
}

/** Another link is another question. */
function keyOf(secret: Uint8Array | undefined): string {
  return secret === undefined ? "" : secret.join();
}

function PairMachine({ code, request }: Pick<Props, "code" | "request">) {
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
        <p className="text-sm">
          To pair this browser with a machine that is connected already, begin in the{" "}
          <Link to="/settings">settings</Link>.
        </p>
      </Screen>
    );
  }
  return <Question key={`${id} ${attempt}`} id={id} code={request === null ? id : null} onCode={ask} />;
}
