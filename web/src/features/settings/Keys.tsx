/** The user's API keys: listed by the homes, made and revoked here. */
import { useEffect, useRef, useState } from "react";
import { ConfirmDialog } from "@/features/frame/ConfirmDialog";
import { CopyButton } from "@/features/frame/CopyButton";
import { useFocusBack, useSaid } from "@/features/frame/focus";
import { date, dateTime, since } from "@/features/frame/times";
import { useTask } from "@/features/frame/useTask";
import { RetryIcon } from "@/features/icons";
import { KeyFormPanel } from "@/features/settings/KeyFormPanel";
import { describeLimits } from "@/features/settings/limits";
import { useHomes } from "@/store/homes";
import { type ListedKey, loadKeys, openKeys, revokeKey, useKeys } from "@/store/keys";
import { useWay } from "@/store/way";

export function Keys({ user }: { readonly user: string | null }) {
  const { run } = useTask();
  const keys = useKeys((state) => state.keys);
  const [secret, setSecret] = useState<string | null>(null);
  const [making, setMaking] = useState(false);
  const said = useSaid();
  const make = useFocusBack<HTMLButtonElement>(making || secret !== null);
  const ready = useHomes((state) => state.ready);
  const homes = useHomes((state) => state.homes.map(({ bridgeId }) => bridgeId).join());
  // Asked once for each user and set of homes; `run` is only the way to do it.
  useEffect(() => {
    if (ready) void run(() => openKeys(user));
  }, [user, ready, homes]);
  const onRevoked = (name: string) => said.say(`${name} was revoked: it is refused from now on.`);
  return (
    <>
      <p className="text-sm text-muted">With a key, other programs reach your models at {location.origin}.</p>
      <ListState />
      <p ref={said.ref} tabIndex={-1} role="status" className="text-sm text-muted outline-none empty:sr-only">
        {said.text}
      </p>
      {keys.length > 0 && (
        <ul className="space-y-3">
          {keys.map((key) => (
            <KeyItem key={key.id} item={key} onRevoked={onRevoked} />
          ))}
        </ul>
      )}
      {secret !== null && <Secret text={secret} onStored={() => setSecret(null)} />}
      {making ? (
        <KeyFormPanel
          onMade={(text) => {
            setSecret(text);
            setMaking(false);
          }}
          onCancel={() => setMaking(false)}
        />
      ) : (
        <button ref={make} type="button" className="button" onClick={() => setMaking(true)}>
          Make a key
        </button>
      )}
    </>
  );
}

/** Whose word the list is, and how old. */
function ListState() {
  const { loading, problem, heard, keys } = useKeys();
  const ready = useHomes((state) => state.ready);
  const { run } = useTask();
  if (loading || !ready) {
    return (
      <p role="status" className="text-sm text-muted">
        Asking your machines for the list…
      </p>
    );
  }
  if (problem === null) {
    return keys.length === 0 ? <p className="text-sm text-muted">There are no keys yet.</p> : null;
  }
  return (
    <div role="status" className="rounded-xl border border-warn-line bg-warn-ground px-4 py-3 text-sm">
      <p className="font-semibold text-warn">The list cannot be read now</p>
      <p>
        Your keys are listed on your own machines, not here. {problem.title}. {problem.detail}
      </p>
      <p>
        {heard === null
          ? "This browser has not seen the list yet"
          : `Below is what this browser saw last, on ${dateTime(heard)}`}
        {keys.length > 0 ? "; a key can be revoked all the same." : "."}
      </p>
      <button type="button" className="button mt-2" onClick={() => void run(loadKeys)}>
        <RetryIcon />
        Ask again
      </button>
    </div>
  );
}

interface KeyItemProps {
  readonly item: ListedKey;
  readonly onRevoked: (name: string) => void;
}

function KeyItem({ item, onRevoked }: KeyItemProps) {
  const { id, name, created, expires, lastUsed, atHome } = item;
  const bridges = useWay((state) => state.status?.bridges);
  const stale = useKeys((state) => state.problem !== null);
  const [asking, setAsking] = useState(false);
  const expired = expires !== null && expires <= Date.now();
  const limits = describeLimits(item, (bridge) => bridges?.find(({ id }) => id === bridge)?.name ?? null);
  return (
    <li className="card space-y-2">
      <div className="flex flex-wrap items-baseline justify-between gap-x-3">
        <h3 className="min-w-0 font-medium break-words">{name}</h3>
        <p className={`text-sm ${expired ? "text-bad" : "text-muted"}`}>
          {expired ? "Expired on" : "Until"} {date(expires)}
        </p>
      </div>
      <p className="text-sm break-words text-muted">
        Made on {date(created)}
        {!stale && atHome && ` · last used: ${since(lastUsed, "never")}`}
        {limits.map((limit) => ` · ${limit}`).join("")}
        {limits.length === 0 && " · no limits"}
      </p>
      {!stale && !atHome && (
        <p className="text-sm text-warn">
          Your machines that answered do not know it yet; they learn of it at its first use.
        </p>
      )}
      <button
        type="button"
        className="button button-bad"
        aria-label={`Revoke ${name}`}
        onClick={() => setAsking(true)}
      >
        Revoke
      </button>
      {asking && (
        <ConfirmDialog
          title={`Revoke ${name}?`}
          action="Revoke"
          work={() => revokeKey(id)}
          onDone={() => onRevoked(name)}
          onClose={() => setAsking(false)}
        >
          <p>Programs that use it are refused at once. It cannot be brought back.</p>
        </ConfirmDialog>
      )}
    </li>
  );
}

interface SecretProps {
  readonly text: string;
  readonly onStored: () => void;
}

function Secret({ text, onStored }: SecretProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <div className="card space-y-3 border-accent">
      <h3 ref={heading} tabIndex={-1} className="font-medium outline-none">
        Your new key
      </h3>
      <p className="text-sm">Store it now: it is shown this once and cannot be read again.</p>
      <code className="prompt break-all" data-testid="new-key">
        {text}
      </code>
      <div className="flex flex-wrap gap-2">
        <CopyButton text={text} what="the key" />
        <button type="button" className="button" onClick={onStored}>
          I have stored it
        </button>
      </div>
    </div>
  );
}
