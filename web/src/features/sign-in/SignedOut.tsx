/** The screens of whoever is not (yet) signed in, in place of the page that they asked for. */
import { Screen } from "@/features/frame/Screen";
import { type Explained, explainSignInError } from "@/features/sign-in/explain";
import { signInAddress } from "@/net/api";
import { isServedByHome } from "@/net/home/served";
import { askAgain } from "@/net/until-answered";
import { usePlace } from "@/store/location";
import { usePairingLink } from "@/store/pairing-link";
import type { Route } from "@/store/route";
import { checkSession, useSession, type Ways } from "@/store/session";

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
          <p>
            Check this device's network connection, and that the server is running. The page goes on by itself
            when it answers.
          </p>
          <button type="button" className="button mt-2" onClick={askAgain}>
            Try now
          </button>
        </Screen>
      );
    case "signed-out":
      return <Invitation linkRefused={session.linkRefused} ways={session.ways} />;
    default:
      return null;
  }
}

const LINK_REFUSED: Explained = {
  title: "This sign-in link does not work any more",
  detail: "Each link works once, and only for a while.",
};

const PURPOSE: Record<Route["page"], string> = {
  chat: "Sign in to chat with your models",
  "sign-in": "Sign in to chat with your models",
  pair: "Sign in to connect a machine",
  settings: "Sign in to see your settings",
  admin: "Sign in to see the overview",
  unknown: "Sign in to chat with your models",
};

const PAIRING = "Sign in to pair this browser";

interface InvitationProps {
  readonly linkRefused: boolean;
  readonly ways: Ways;
}

function Invitation({ linkRefused, ways }: InvitationProps) {
  const { route, address } = usePlace();
  const pairing = usePairingLink(({ taken }) => taken !== null) && route.page === "pair";
  const { providers } = ways;
  const byLink = ways.byLink || providers.length === 0;
  const error = route.page === "sign-in" ? route.error : null;
  const failed = linkRefused ? LINK_REFUSED : error === null ? null : explainSignInError(error);
  const returnTo = route.page === "sign-in" ? route.returnTo : address;
  return (
    <Screen title={failed?.title ?? (pairing ? PAIRING : PURPOSE[route.page])}>
      {failed !== null && <p role="alert">{failed.detail}</p>}
      {providers.map((provider) => (
        <button
          key={provider.id}
          type="button"
          className="button button-main w-full py-2.5 break-words"
          // A click and no link: beginning to sign in is nothing for a browser to fetch in advance.
          onClick={() => location.assign(signInAddress(provider, returnTo))}
        >
          Sign in with {provider.name}
        </button>
      ))}
      {byLink && <ByLink others={providers.length > 0} />}
    </Screen>
  );
}

function ByLink({ others }: { readonly others: boolean }) {
  const atHome = isServedByHome();
  return (
    <>
      <p>
        {others ? "Or open" : "Open"} the link that{" "}
        <code className="font-mono text-ink">cloudtolocalllm {atHome ? "bridge run" : "up"}</code> printed in
        its terminal, or ask for a new one on {atHome ? "this" : "that"} machine:
      </p>
      <code className="prompt">cloudtolocalllm {atHome ? "bridge page" : "sign-in-link"}</code>
      <button type="button" className="button mt-2" onClick={() => void checkSession()}>
        I have signed in: look again
      </button>
    </>
  );
}
