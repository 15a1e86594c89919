/** Which machine is preferred, where several have the model that a new chat wants. */

import { type Home, useHomes, userKey } from "@/store/homes";
import { chooseModel, useModels } from "@/store/models";
import { byPriority, moved, setPriority, usePriority } from "@/store/priority";

interface PriorityProps {
  readonly user: string | null;
  readonly home: Home;
  readonly name: string;
}

export function Priority({ user, home, name }: PriorityProps) {
  const homes = useHomes((state) => state.homes);
  const chosen = useModels((state) => state.chosen);
  const kept = usePriority((state) => state.order);
  const order = byPriority(homes, kept).map(({ bridgeId }) => bridgeId);
  if (order.length < 2) return null;
  return (
    <p className="text-sm">
      <label>
        Priority{" "}
        <select
          className="rounded-lg bg-sunken px-2 py-1"
          aria-label={`Priority of ${name}`}
          value={order.indexOf(home.bridgeId)}
          onChange={({ target }) => {
            setPriority(userKey(user), moved(order, home.bridgeId, Number(target.value)));
            // A machine that was picked for new chats before is so no more.
            if (chosen !== null) chooseModel({ ...chosen, bridgeId: null });
          }}
        >
          {order.map((id, place) => (
            <option key={id} value={place}>
              {place === 0 ? "1 (preferred)" : place + 1}
            </option>
          ))}
        </select>
      </label>
    </p>
  );
}
