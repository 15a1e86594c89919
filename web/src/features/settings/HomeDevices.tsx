/** The devices that may talk with each home, sealed: this browser, others, and those that wait to be let in. */
import { useCallback, useEffect, useRef, useState } from "react";
import { useSaid } from "@/features/frame/focus";
import { Link } from "@/features/frame/Link";
import { Trouble } from "@/features/frame/Trouble";
import { Damaged, HomeTrouble } from "@/features/homes/HomeTrouble";
import { useHomeName } from "@/features/homes/useHomeName";
import { RetryIcon } from "@/features/icons";
import { AddDevice } from "@/features/settings/AddDevice";
import { HomeDeviceItem } from "@/features/settings/HomeDeviceItem";
import { Priority } from "@/features/settings/Priority";
import { type Devices, listDevices } from "@/net/home/api";
import { type Problem, ProblemError } from "@/net/problem";
import { type Home, LOCAL, useHomes } from "@/store/homes";
import { checkSession } from "@/store/session";
import { useWay } from "@/store/way";

export function HomeDevices({ user }: { readonly user: string | null }) {
  const { ready, homes, waiting, damaged, keepsNothing } = useHomes();
  const bridges = useWay((state) => state.status?.bridges);
  if (!ready) return <p className="text-sm text-muted">Looking at what this browser keeps…</p>;
  const paired = new Set(homes.map(({ bridgeId }) => bridgeId));
  const others = paired.has(LOCAL) ? [] : (bridges ?? []).filter(({ id }) => !paired.has(id));
  return (
    <>
      <p className="text-sm text-muted">
        Devices that are paired with a machine may use its models and read the conversations that are kept
        there. The server between can read nothing of it.
      </p>
      {keepsNothing && (
        <p role="alert" className="text-sm text-bad">
          This browser keeps nothing for this page, so it cannot be paired. Leave the private window, or allow
          this page to store data.
        </p>
      )}
      {damaged && <Damaged />}
      {homes.length > 1 && (
        <p className="text-sm text-muted">
          Where several of your machines have a model, a new chat goes to one that is online; of these, to the
          one whose priority is lowest.
        </p>
      )}
      {homes.map((home) => (
        <HomeCard key={home.bridgeId} user={user} home={home} />
      ))}
      {others.map(({ id, name }) => (
        <div key={id} className="card space-y-2">
          <h3 className="font-medium break-words">{name}</h3>
          <p className="text-sm text-muted">
            {waiting.some(({ bridgeId }) => bridgeId === id)
              ? "This browser waits to be let in there."
              : "This browser is not paired with it."}
          </p>
          <Link to={`/pair?home=${id}`} className="button" label={`Pair this browser with ${name}`}>
            Pair this browser
          </Link>
        </div>
      ))}
    </>
  );
}

interface HomeCardProps {
  readonly user: string | null;
  readonly home: Home;
}

function HomeCard({ user, home }: HomeCardProps) {
  const name = useHomeName(home.bridgeId);
  return (
    <div className="card space-y-3">
      <h3 className="font-medium break-words">{name}</h3>
      <Priority user={user} home={home} name={name} />
      <HomeTrouble home={home} />
      {home.trouble === null && <HomeList user={user} home={home} name={name} />}
    </div>
  );
}

/** How often the list is asked for while it is looked at: somebody may be waiting at another screen. */
const AGAIN_MS = 5_000;

function HomeList({ user, home, name }: HomeCardProps & { readonly name: string }) {
  const { list, problem, look } = useDeviceList(home);
  const said = useSaid();
  const onDone = async (text: string) => {
    // First the list: what had the focus goes with it, and then the sentence takes it.
    await look();
    said.say(text);
  };
  return (
    <>
      <p ref={said.ref} tabIndex={-1} role="status" className="text-sm text-muted outline-none empty:sr-only">
        {said.text}
      </p>
      {problem !== null && (
        <>
          <Trouble problem={problem} />
          <button type="button" className="button" onClick={() => void look()}>
            <RetryIcon />
            Ask again
          </button>
        </>
      )}
      {list === null ? (
        problem === null && <p className="text-sm text-muted">Asking {name} for the list…</p>
      ) : (
        <ul aria-label={`Devices of ${name}`} className="space-y-3">
          {list.devices.map((device) => (
            <HomeDeviceItem
              key={device.id}
              user={user}
              home={home}
              device={device}
              own={device.id === list.own}
              nameOf={(id) => list.devices.find((other) => other.id === id)?.name ?? null}
              onDone={onDone}
            />
          ))}
        </ul>
      )}
      {list !== null && <AddDevice home={home} name={name} />}
    </>
  );
}

interface Looked {
  /** As it was seen last; `null` before. */
  readonly list: Devices | null;
  /** Why the last look failed. */
  readonly problem: Problem | null;
}

function useDeviceList(home: Home): Looked & { readonly look: () => Promise<void> } {
  const [looked, setLooked] = useState<Looked>({ list: null, problem: null });
  const { transport } = home;
  const turn = useRef(0);
  const look = useCallback(async () => {
    turn.current += 1;
    const mine = turn.current;
    try {
      const list = await listDevices(transport);
      if (mine === turn.current) setLooked({ list, problem: null });
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      const { problem } = error;
      if (mine === turn.current) setLooked(({ list }) => ({ list, problem }));
      if (problem.status === 401) void checkSession();
    }
  }, [transport]);
  const failed = looked.problem !== null;
  useEffect(() => {
    void look();
  }, [look]);
  useEffect(() => {
    if (failed) return;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void look();
    }, AGAIN_MS);
    return () => clearInterval(timer);
  }, [failed, look]);
  return { ...looked, look };
}
