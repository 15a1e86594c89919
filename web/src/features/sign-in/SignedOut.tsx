/** The screens of whoever is not (yet) signed in. */
import type { ReactNode } from "react";
import { Mark } from "@/features/icons";
import { checkSession, useSession } from "@/store/session";

export function SignedOut() {
  const session = useSession();
  switch (session.kind) {
    case "checking":
      return <Screen title="One moment" busy />;
    case "signing-in":
      return <Screen title="Signing you in" busy />;
    case "unreachable":
      return (
        <Screen title="The server does not answer">
          <p>Check this device's network connection, and that the server is running.</p>
          <button type="button" className="button mt-2" onClick={() => location.reload()}>
            Try again
          </button>
        </Screen>
      );
    default:
      return <Invitation linkRefused={session.kind === "signed-out" && session.linkRefused} />;
  }
}

function Invitation({ linkRefused }: { readonly linkRefused: boolean }) {
  return (
    <Screen
      title={linkRefused ? "This sign-in link does not work any more" : "Sign in to chat with your models"}
    >
      {linkRefused && <p>Each link works once, and only for a while.</p>}
      <p>
        Open the link that <code className="font-mono text-ink">cloudtolocalllm up</code> printed in its
        terminal, or ask for a new one on that machine:
      </p>
      <code className="prompt">cloudtolocalllm sign-in-link</code>
      <button type="button" className="button mt-2" onClick={() => void checkSession()}>
        I have signed in: look again
      </button>
    </Screen>
  );
}

interface ScreenProps {
  readonly title: string;
  readonly busy?: boolean;
  readonly children?: ReactNode;
}

function Screen({ title, busy = false, children }: ScreenProps) {
  return (
    <main className="grid h-full place-items-center overflow-y-auto p-4" aria-busy={busy}>
      <div className="w-full max-w-md space-y-6">
        <div className="flex items-center gap-3">
          <Mark className="size-10" />
          <p className="font-semibold">CloudToLocalLLM</p>
        </div>
        <div className="space-y-3 text-muted">
          <h1 className="text-2xl leading-tight font-semibold text-balance text-ink">{title}</h1>
          {children}
        </div>
      </div>
    </main>
  );
}
