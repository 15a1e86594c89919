/** In place of the conversation, where this browser is paired with no machine yet. */
import { Link } from "@/features/frame/Link";
import { useHomes } from "@/store/homes";
import { useWay } from "@/store/way";

export function Unpaired() {
  const bridges = useWay((state) => state.status?.bridges ?? null);
  const waiting = useHomes((state) => state.waiting);
  const keepsNothing = useHomes((state) => state.keepsNothing);
  return (
    <div className="my-auto space-y-4 py-4 text-center">
      <h2 className="text-2xl font-semibold text-balance">Pair this browser with your machine</h2>
      <p className="mx-auto max-w-xl text-pretty text-muted">
        What you and your machine say to each other is sealed from here to there, so that the server between
        cannot read it. For that, the two have to know each other's keys.
      </p>
      {keepsNothing && (
        <p role="alert" className="text-sm text-bad">
          This browser keeps nothing for this page, so it cannot be paired. Leave the private window, or allow
          this page to store data.
        </p>
      )}
      {bridges?.length === 0 && (
        <p className="text-sm text-muted">No machine is connected with this account yet.</p>
      )}
      <ul className="mx-auto grid max-w-md gap-2">
        {bridges?.map(({ id, name, connected }) => (
          <li key={id}>
            <Link to={`/pair?home=${id}`} className="button button-main w-full" label={`Pair with ${name}`}>
              {waiting.some(({ bridgeId }) => bridgeId === id) ? `Go on with ${name}` : `Pair with ${name}`}
              {!connected && " (not connected)"}
            </Link>
          </li>
        ))}
      </ul>
    </div>
  );
}
