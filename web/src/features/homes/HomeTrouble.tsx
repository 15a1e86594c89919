/** What stands between this browser and a home until somebody acts: said wherever it matters. */
import { Link } from "@/features/frame/Link";
import { useHomeName } from "@/features/homes/useHomeName";
import { type Home, useHomes } from "@/store/homes";

/** For the head of the chat: nothing while all is well. */
export function HomeTroubles() {
  const homes = useHomes((state) => state.homes);
  const damaged = useHomes((state) => state.damaged);
  const troubled = homes.filter(({ trouble }) => trouble !== null);
  if (troubled.length === 0 && !damaged) return null;
  return (
    <div className="mx-auto w-full max-w-3xl space-y-2 px-4 pt-3">
      {troubled.map((home) => (
        <HomeTrouble key={home.bridgeId} home={home} />
      ))}
      {damaged && <Damaged />}
    </div>
  );
}

export function HomeTrouble({ home }: { readonly home: Home }) {
  const name = useHomeName(home.bridgeId);
  if (home.trouble === null) return null;
  return (
    <section role="alert" className="rounded-xl border border-bad-line bg-bad-ground px-4 py-3 text-sm">
      {home.trouble === "removed" ? (
        <>
          <p className="font-semibold break-words text-bad">{name} does not know this browser any more</p>
          <p>
            It was removed from the list of devices there, or the home store was set up anew. What is kept at
            home is still there.
          </p>
        </>
      ) : (
        <>
          <p className="font-semibold break-words text-bad">{name} shows another identity</p>
          <p>
            Nothing is sent to it. If you gave it a new identity yourself, pair this browser anew by a link
            from the machine. If you did not, somebody between may be pretending to be it: do not pair.
          </p>
        </>
      )}
      <p className="mt-1">
        <Link to={`/pair?home=${home.bridgeId}`}>Pair this browser anew</Link>
      </p>
    </section>
  );
}

export function Damaged() {
  return (
    <p role="alert" className="rounded-xl border border-warn-line bg-warn-ground px-4 py-3 text-sm text-warn">
      A key that this browser kept was damaged and had to be thrown away. Pair this browser anew with the
      machine that is missing in the <Link to="/settings">settings</Link>.
    </p>
  );
}
