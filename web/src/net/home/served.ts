/** Who served this page. */
import { isLoopback } from "@/net/loopback";

/** Whether the page was served by the home itself. What serves it from anywhere else cannot claim that. */
export function isServedByHome(): boolean {
  const said = document.querySelector('meta[name="c2l-home"]')?.getAttribute("content");
  return said === "direct" && isLoopback(location.origin);
}
