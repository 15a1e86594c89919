/** Who served this page. */
import { isLoopback } from "@/net/loopback";

/** Whether the page was served by the home itself. What serves it from anywhere else cannot claim that. */
export function isServedByHome(): boolean {
  return mark()?.getAttribute("content") === "direct" && isLoopback(location.origin);
}

/** The origin at which other devices find the server between. */
export function serverOrigin(): string {
  const said = isServedByHome() ? mark()?.getAttribute("data-server") : null;
  return said ?? location.origin;
}

/** Whether the browser may keep a copy of conversations. A home on a port that anybody here may have tomorrow says no. */
export function mayKeep(): boolean {
  return mark()?.getAttribute("data-keep") !== "nothing";
}

function mark(): Element | null {
  return document.querySelector('meta[name="c2l-home"]');
}
