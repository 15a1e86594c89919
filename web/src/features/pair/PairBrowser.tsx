/** Pairing this browser by a link: what it is for, a click, and what came of it. */
import { type FormEvent, useEffect, useRef, useState } from "react";
import { Command } from "@/features/frame/CopyButton";
import { Link } from "@/features/frame/Link";
import { Screen } from "@/features/frame/Screen";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { useHomeName } from "@/features/homes/useHomeName";
import { NameField } from "@/features/pair/NameField";
import { browserName, deviceName } from "@/net/home/browser-name";
import { LINK_USED } from "@/net/home/pairing";
import type { Problem } from "@/net/problem";
import type { PairingLink } from "@/protocol/sealed/pairing";
import { useHomes } from "@/store/homes";
import { stayWithin } from "@/store/location";
import { isPairedAlready, pairWithLink, standingOf } from "@/store/pairing";
import { forgetPairingLink } from "@/store/pairing-link";

export const PAIR_COMMAND = "cloudtolocalllm bridge pair-device";

interface Props {
  readonly user: string | null;
  /** `null` for one that was not copied whole. */
  readonly link: PairingLink | null;
  readonly onDone: (bridgeId: string) => void;
}

export function PairBrowser({ user, link, onDone }: Props) {
  const ready = useHomes((state) => state.ready);
  if (link === null) return <NotWhole />;
  return ready ? <Looking user={user} link={link} onDone={onDone} /> : <Screen title="One moment" busy />;
}

function NotWhole() {
  return (
    <Screen title="This pairing link is not whole">
      <p role="alert">A part of it was lost on the way. Copy it again, or make a new one at the machine:</p>
      <Command text={PAIR_COMMAND} what="the command" />
      <button type="button" className="button" onClick={forgetPairingLink}>
        Go on without it
      </button>
    </Screen>
  );
}

interface LinkProps {
  readonly user: string | null;
  readonly link: PairingLink;
  readonly onDone: (bridgeId: string) => void;
}

/** Does not use a link up that is not needed. */
function Looking({ user, link, onDone }: LinkProps) {
  const [standing] = useState(() => standingOf(link));
  const [already, setAlready] = useState<boolean | null>(standing === "same" ? null : false);
  useEffect(() => {
    if (standing !== "same") return;
    let left = false;
    void isPairedAlready(link).then((paired) => {
      if (!left) setAlready(paired);
    });
    return () => {
      left = true;
    };
  }, [link, standing]);
  if (already === null) return <Screen title="Asking the machine" busy />;
  if (already) return <Already link={link} />;
  return <Asking user={user} link={link} known={standing === "other-identity"} onDone={onDone} />;
}

function Already({ link }: { readonly link: PairingLink }) {
  const name = useHomeName(link.bridgeId);
  return (
    <Screen title="This browser is paired already">
      <p role="status" className="break-words">
        {name} lets this browser in as it is. The link was not used; another device can take it.
      </p>
      <p>
        <Link to="/" className="button" onFollow={forgetPairingLink}>
          To the chat
        </Link>
      </p>
    </Screen>
  );
}

interface AskingProps extends LinkProps {
  /** Whether this browser knows the machine with another identity. */
  readonly known: boolean;
}

function Asking({ user, link, known, onDone }: AskingProps) {
  const name = useHomeName(link.bridgeId);
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState(() => browserName(navigator.userAgent));
  const [wrong, setWrong] = useState(false);
  const { busy, problem, run } = useTask();
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const called = deviceName(typed);
    setWrong(called === null);
    if (called === null) {
      field.current?.focus();
      return;
    }
    stayWithin();
    if (await run(() => pairWithLink(user, link, called))) onDone(link.bridgeId);
  };
  return (
    <Screen title={known ? "This machine has a new identity" : "Pair this browser?"}>
      {known && <NewIdentity name={name} />}
      <dl className="facts card">
        <dt>Machine</dt>
        <dd>{name}</dd>
      </dl>
      <p>
        A paired browser may use the models on that machine and read the conversations that are kept there.
        What it says and hears is sealed: the server between cannot read it.
      </p>
      <p>
        <strong className="text-ink">Pair only by a link that you made yourself, just now.</strong>
      </p>
      <form onSubmit={(event) => void submit(event)} noValidate className="space-y-3">
        <NameField ref={field} value={typed} wrong={wrong} onChange={setTyped} />
        <Trouble problem={problem} />
        <Remedy problem={problem} />
        <div className="flex flex-wrap gap-2">
          <button type="submit" className={`button ${known ? "button-bad" : "button-main"}`} disabled={busy}>
            {known ? "Pair with the new identity" : "Pair this browser"}
          </button>
          <button type="button" className="button" disabled={busy} onClick={forgetPairingLink}>
            Cancel
          </button>
        </div>
      </form>
      <p role="status" className="text-sm">
        {busy && "Asking the machine…"}
      </p>
    </Screen>
  );
}

/** What to do about a failure that a further click cannot mend. */
function Remedy({ problem }: { readonly problem: Problem | null }) {
  if (problem?.slug !== LINK_USED) return null;
  return <Command text={PAIR_COMMAND} what="the command for a new link" />;
}

function NewIdentity({ name }: { readonly name: string }) {
  return (
    <div role="alert" className="rounded-xl border border-bad-line bg-bad-ground px-4 py-3 text-sm text-ink">
      <p className="font-semibold text-bad">The link is for another identity than this browser knows</p>
      <p className="break-words">
        If you gave {name} a new identity, or set it up anew, go on: this browser then trusts the new one and
        no longer the old. If you did not, cancel; somebody may be pretending to be your machine.
      </p>
    </div>
  );
}

export function Paired({ bridgeId }: { readonly bridgeId: string }) {
  const name = useHomeName(bridgeId);
  return (
    <Screen title="This browser is paired">
      <p role="status" className="break-words">
        What you and {name} say to each other is sealed from here to there.
      </p>
      <p>
        Its key stays in this browser. If the browser's storage is cleared, the key is gone and this browser
        has to be paired anew; nothing at home is lost.
      </p>
      <p className="flex flex-wrap gap-2">
        <Link to="/" className="button button-main">
          To the chat
        </Link>
        <Link to="/settings" className="button">
          See your devices
        </Link>
      </p>
    </Screen>
  );
}
