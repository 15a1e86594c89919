/** What a key may do, in words. Pure. */
import { ROUTES } from "@/features/settings/key-request";
import type { KeyLimits } from "@/net/keys";

const count = new Intl.NumberFormat();

/** @param bridgeName - finds a machine's name; `null` for one that is not known (any more). */
export function describeLimits(limits: KeyLimits, bridgeName: (id: string) => string | null): string[] {
  const { routes, models, requestsPerMinute, tokensPerDay, bridge } = limits;
  const said: string[] = [];
  if (routes.length > 0) said.push(`Only ${routes.map(routeName).join(", ")}`);
  if (models.length > 0) said.push(`Models ${models.join(", ")}`);
  if (requestsPerMinute !== null) said.push(`${count.format(requestsPerMinute)} requests a minute`);
  if (tokensPerDay !== null) said.push(`${count.format(tokensPerDay)} tokens a day`);
  if (bridge !== null) said.push(`Only ${bridgeName(bridge) ?? "a machine that is not yours any more"}`);
  return said;
}

function routeName(route: string): string {
  return ROUTES.find(({ prefix }) => prefix === route)?.name ?? route;
}
