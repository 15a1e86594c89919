/** What the account calls a machine. */
import { LOCAL } from "@/store/homes";
import { useWay } from "@/store/way";

export function useHomeName(bridgeId: string): string {
  const name = useWay((state) => state.status?.bridges.find(({ id }) => id === bridgeId)?.name);
  return name ?? (bridgeId === LOCAL ? "This machine" : bridgeId);
}
