/** Where the page is, over the browser's history. */
import { create } from "zustand";
import { parseRoute, type Route } from "@/store/route";

interface Place {
  readonly route: Route;
  /** Path and query. */
  readonly address: string;
  /** False for the place that the page was opened with. */
  readonly within: boolean;
}

function here(within: boolean): Place {
  const { pathname, search } = window.location;
  return { route: parseRoute(pathname, search), address: pathname + search, within };
}

export const usePlace = create<Place>(() => here(false));

/** Goes to another of our pages. @param how - whether the present one stays in the history. */
export function navigate(address: string, how: "push" | "replace" = "push"): void {
  if (how === "push") history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  usePlace.setState(here(true), true);
}

/** Says that what comes next comes by an act on this page, not by opening it: the focus goes with it. */
export function stayWithin(): void {
  usePlace.setState({ within: true });
}

window.addEventListener("popstate", () => usePlace.setState(here(true), true));
