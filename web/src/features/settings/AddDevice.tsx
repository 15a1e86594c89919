/** A link, and a code to be scanned, for one further device. */
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { Command } from "@/features/frame/CopyButton";
import { useFocusBack } from "@/features/frame/focus";
import { Trouble } from "@/features/frame/Trouble";
import { timeOfDay } from "@/features/frame/times";
import { useTask } from "@/features/frame/useTask";
import { offerPairing } from "@/net/home/api";
import { serverOrigin } from "@/net/home/served";
import type { Home } from "@/store/homes";

// Drawing codes is for the few who ask for one.
const PairingCode = lazy(async () => ({
  default: (await import("@/features/homes/PairingCode")).PairingCode,
}));

interface Offered {
  readonly link: string;
  /** Milliseconds since 1970. */
  readonly until: number;
}

interface Props {
  readonly home: Home;
  readonly name: string;
}

export function AddDevice({ home, name }: Props) {
  const [offered, setOffered] = useState<Offered | null>(null);
  const { busy, problem, run } = useTask();
  const add = useFocusBack<HTMLButtonElement>(offered !== null);
  useEffect(() => {
    if (offered === null) return;
    const timer = setTimeout(() => setOffered(null), offered.until - Date.now());
    return () => clearTimeout(timer);
  }, [offered]);
  const offer = () =>
    run(async () => {
      const { link_fragment, expires } = await offerPairing(home.transport);
      setOffered({ link: `${serverOrigin()}/pair#${link_fragment}`, until: Date.now() + expires * 1000 });
    });
  if (offered !== null) return <Offer offered={offered} name={name} onClose={() => setOffered(null)} />;
  return (
    <div className="space-y-2 border-t border-line pt-3">
      <Trouble problem={problem} />
      <button
        ref={add}
        type="button"
        className="button"
        aria-label={`Add a device to ${name}`}
        disabled={busy}
        onClick={() => void offer()}
      >
        Add a device
      </button>
    </div>
  );
}

interface OfferProps {
  readonly offered: Offered;
  readonly name: string;
  readonly onClose: () => void;
}

function Offer({ offered, name, onClose }: OfferProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <div className="space-y-3 border-t border-line pt-3">
      <h4 ref={heading} tabIndex={-1} className="font-medium outline-none">
        A link for one device
      </h4>
      <p className="text-sm break-words">
        Scan it with the new device, or open the link there, and sign in with this account. It is good until{" "}
        {timeOfDay(offered.until)}, once. <strong>Whoever has it can pair with {name}:</strong> show it to
        nobody else.
      </p>
      <Suspense fallback={<p className="text-sm text-muted">Drawing the code…</p>}>
        <PairingCode text={offered.link} />
      </Suspense>
      <Command text={offered.link} what="the link" />
      <button type="button" className="button" onClick={onClose}>
        Done
      </button>
    </div>
  );
}
