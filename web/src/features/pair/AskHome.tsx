/** Pairing this browser with one of the account's machines when there is no link yet: how to get one, or by words. */
import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { Command } from "@/features/frame/CopyButton";
import { Link } from "@/features/frame/Link";
import { Screen } from "@/features/frame/Screen";
import { Trouble } from "@/features/frame/Trouble";
import { useTask } from "@/features/frame/useTask";
import { SafetyWords } from "@/features/homes/SafetyWords";
import { useHomeName } from "@/features/homes/useHomeName";
import { NameField } from "@/features/pair/NameField";
import { PAIR_COMMAND } from "@/features/pair/PairBrowser";
import { backoffMs, sleep } from "@/net/backoff";
import { browserName, deviceName } from "@/net/home/browser-name";
import { type Problem, ProblemError } from "@/net/problem";
import { useHomes } from "@/store/homes";
import type { Identity } from "@/store/identity";
import { stayWithin } from "@/store/location";
import { agreeWaiting, beginWaiting, giveUpWaiting, lookWaiting } from "@/store/pairing";
import { keepTypedLink } from "@/store/pairing-link";

interface Props {
  readonly user: string | null;
  readonly bridgeId: string;
  readonly onDone: (bridgeId: string) => void;
}

export function AskHome({ user, bridgeId, onDone }: Props) {
  const { ready, waiting } = useHomes();
  const identity = waiting.find((candidate) => candidate.bridgeId === bridgeId);
  if (!ready) return <Screen title="One moment" busy />;
  if (identity === undefined) return <Ways user={user} bridgeId={bridgeId} />;
  return <Waiting key={identity.device.id} user={user} identity={identity} onDone={onDone} />;
}

function Ways({ user, bridgeId }: { readonly user: string | null; readonly bridgeId: string }) {
  const name = useHomeName(bridgeId);
  const paired = useHomes(({ homes }) => homes.some((home) => home.bridgeId === bridgeId));
  return (
    <Screen title="Pair this browser">
      {paired ? (
        <p className="break-words">
          This browser is paired with {name}. If it is paired anew, it gets another key, and the old one is
          removed.
        </p>
      ) : (
        <p className="break-words">
          This browser is not paired with {name}. If it was before, its key is gone: browsers throw it away
          with the page's data, in private windows when they are closed, and some after weeks without a visit.
          Nothing at home is lost.
        </p>
      )}
      <h2 className="font-semibold text-ink">By a link from the machine</h2>
      <p>Run this there. Open the link that it shows in this browser, or scan its code with this device:</p>
      <Command text={PAIR_COMMAND} what="the command" />
      <TypedLink />
      <details className="card">
        <summary className="font-medium text-ink">Without a link</summary>
        <ByWords user={user} bridgeId={bridgeId} />
      </details>
    </Screen>
  );
}

function TypedLink() {
  const id = useId();
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState("");
  const [wrong, setWrong] = useState(false);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    stayWithin();
    // With a good one, another screen takes this one's place.
    if (keepTypedLink(typed)) return;
    setWrong(true);
    field.current?.focus();
  };
  return (
    <form onSubmit={submit} noValidate className="space-y-1">
      <label htmlFor={id} className="block font-medium text-ink">
        Or paste the link here
      </label>
      <div className="flex gap-2">
        <input
          id={id}
          ref={field}
          value={typed}
          autoComplete="off"
          spellCheck={false}
          aria-invalid={wrong}
          aria-describedby={wrong ? `${id}-wrong` : undefined}
          onChange={(event) => setTyped(event.target.value)}
          className="field"
        />
        <button type="submit" className="button shrink-0">
          Continue
        </button>
      </div>
      {wrong && (
        <p id={`${id}-wrong`} role="alert" className="text-sm text-bad">
          This is no whole pairing link. It has a # and begins with c2l1 after it.
        </p>
      )}
    </form>
  );
}

function ByWords({ user, bridgeId }: { readonly user: string | null; readonly bridgeId: string }) {
  const field = useRef<HTMLInputElement>(null);
  const [typed, setTyped] = useState(() => browserName(navigator.userAgent));
  const [wrong, setWrong] = useState(false);
  const { busy, problem, run } = useTask();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const called = deviceName(typed);
    setWrong(called === null);
    stayWithin();
    if (called === null) field.current?.focus();
    else void run(() => beginWaiting(user, bridgeId, called));
  };
  return (
    <form onSubmit={submit} noValidate className="mt-3 space-y-3 text-sm">
      <p>
        Ask to be let in. Eight words are shown here, and the same eight at the machine and at your paired
        devices; somebody there lets this browser in.
      </p>
      <NameField ref={field} value={typed} wrong={wrong} onChange={setTyped} />
      <Trouble problem={problem} />
      <button type="submit" className="button" disabled={busy}>
        Ask to be let in
      </button>
    </form>
  );
}

interface WaitingProps {
  readonly user: string | null;
  readonly identity: Identity;
  readonly onDone: (bridgeId: string) => void;
}

function Waiting({ user, identity, onDone }: WaitingProps) {
  const { bridgeId, fingerprint, device, agreed, name: own } = identity;
  const name = useHomeName(bridgeId);
  const { busy, problem, run } = useTask();
  const { letIn, trouble } = useLooking(user, identity, onDone);
  const act = (work: () => Promise<void>) => {
    stayWithin();
    void run(work);
  };
  return (
    <Screen title="Compare these words">
      <SafetyWords fingerprint={fingerprint} deviceId={device.id} />
      <p className="break-words">
        {name} shows its words for “{own}” when you run this there; a device that is paired shows them in its
        settings.
      </p>
      <Command text="cloudtolocalllm bridge devices" what="the command" />
      <p>
        <strong className="text-ink">
          Let it in there only if all eight words are the same, in this order.
        </strong>{" "}
        If one differs, somebody is between: give up.
      </p>
      <p role="status" className="text-sm">
        {statusOf(agreed, letIn)}
      </p>
      <Trouble problem={problem ?? trouble} />
      <div className="flex flex-wrap gap-2">
        {!agreed && (
          <button
            type="button"
            className="button button-main"
            disabled={busy}
            onClick={() => act(() => agreeWaiting(user, identity))}
          >
            The words are the same
          </button>
        )}
        <button
          type="button"
          className="button"
          disabled={busy}
          onClick={() => act(() => giveUpWaiting(user, identity))}
        >
          Give up
        </button>
        <Link to="/" className="button">
          To the chat
        </Link>
      </div>
    </Screen>
  );
}

function statusOf(agreed: boolean, letIn: boolean): string {
  if (letIn && !agreed) return "It was let in at home. Say here whether the words were the same.";
  return agreed ? "Waiting until somebody at home lets this browser in…" : "Waiting for both ends…";
}

const BOUNDS = { firstMs: 3_000, mostMs: 15_000 } as const;

/** Asks again and again how it stands, as long as the page is open. */
function useLooking(user: string | null, identity: Identity, onDone: (bridgeId: string) => void) {
  const [letIn, setLetIn] = useState(false);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  // The identity is a new one when the words were agreed upon, and then it is asked at once.
  useEffect(() => {
    const leaving = new AbortController();
    const look = async () => {
      let failures = 0;
      while (!leaving.signal.aborted) {
        try {
          const state = await lookWaiting(user, identity);
          failures = 0;
          // Also when this screen is gone already: whoever waits no more is not shown here.
          if (state === "paired" && identity.agreed) {
            onDone(identity.bridgeId);
            return;
          }
          if (leaving.signal.aborted) return;
          setTrouble(null);
          setLetIn(state === "paired");
        } catch (error) {
          if (!(error instanceof ProblemError)) throw error;
          failures += 1;
          if (!leaving.signal.aborted) setTrouble(error.problem);
        }
        await sleep(backoffMs(failures, BOUNDS, 1), leaving.signal);
      }
    };
    void look();
    return () => leaving.abort();
  }, [user, identity, onDone]);
  return { letIn, trouble };
}
