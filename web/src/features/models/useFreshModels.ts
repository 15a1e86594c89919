/** Asks homes for their models when they can be reached, and again whenever an engine comes or goes. */
import { useEffect } from "react";
import { useChats } from "@/store/conversation";
import { userKey } from "@/store/homes";
import { loadModels } from "@/store/models";
import { useWay } from "@/store/way";

export function useFreshModels(user: string | null): void {
  const engines = useWay(({ status }) =>
    (status?.bridges ?? [])
      .flatMap(({ id, engines }) =>
        engines.filter(({ state }) => state !== "down").map((engine) => `${id}/${engine.id}`),
      )
      .join(" "),
  );
  const live = useChats(({ views }) =>
    [...views.values()]
      .filter(({ contact }) => contact === "live")
      .map(({ bridgeId }) => bridgeId)
      .join(" "),
  );
  useEffect(() => {
    for (const bridgeId of live.split(" ")) if (bridgeId !== "") void loadModels(userKey(user), bridgeId);
  }, [engines, live, user]);
}
