/** Which model of which home would answer now. */
import { useMemo } from "react";
import { type Choice, pathOf, useChats, useOpen } from "@/store/conversation";
import { useHomes } from "@/store/homes";
import { choiceOf, type Offer, offersOf, useModels } from "@/store/models";
import { useOpened } from "@/store/place";
import { byPriority, usePriority } from "@/store/priority";

interface Choices {
  readonly offers: readonly Offer[];
  readonly choice: Choice | null;
  /** Whether the home of the choice can be reached. */
  readonly online: boolean;
  /** The home that the conversation is at; `null` for one that is to be begun. */
  readonly within: string | null;
}

export function useOffers(): readonly Offer[] {
  const homes = useHomes((state) => state.homes);
  const order = usePriority((state) => state.order);
  const views = useChats((state) => state.views);
  const lists = useModels((state) => state.homes);
  // As a text, so that it is the same while nothing changes.
  const known = JSON.stringify(
    byPriority(homes, order).map(({ bridgeId }) => {
      const contact = views.get(bridgeId)?.contact ?? "lost";
      // Of one that has yet to be heard of, nobody can say that it is away.
      return { bridgeId, online: contact !== "lost" };
    }),
  );
  return useMemo(
    () => offersOf(JSON.parse(known) as { bridgeId: string; online: boolean }[], lists),
    [known, lists],
  );
}

export function useChoice(): Choices {
  const offers = useOffers();
  const chosen = useModels((state) => state.chosen);
  const within = useOpened((state) => state.place?.bridgeId ?? null);
  const last = useOpen((at) =>
    at === null ? null : (pathOf(at).findLast(({ role }) => role === "assistant")?.model ?? null),
  );
  const choice = useMemo(() => choiceOf(offers, chosen, within, last), [offers, chosen, within, last]);
  const home = within ?? choice?.bridgeId ?? null;
  const online = useChats(({ views }) => home !== null && views.get(home)?.contact === "live");
  return { offers, choice, online, within };
}
