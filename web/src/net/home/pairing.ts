/** How this browser and a home come to know each other's keys (docs/reference/sealed-format.md §8). */
import { fields } from "@/net/decode";
import { BreakError } from "@/net/home/following";
import { askSealed, type SealedAnswer } from "@/net/home/sealing";
import { fetchStatement, type PinnedBridge, verified } from "@/net/home/statements";
import type { HomeWorld } from "@/net/home/world";
import { NO_CONTACT, OHTTP_KEY, type Problem, ProblemError, problemFrom } from "@/net/problem";
import { type Bytes, concat } from "@/protocol/sealed/bytes";
import type { Device } from "@/protocol/sealed/device";
import type { Fields } from "@/protocol/sealed/fields";
import { introduction, PAIRING_PATH, type PairingLink, sharedSecret } from "@/protocol/sealed/pairing";
import { claimedFingerprint, type Statement } from "@/protocol/sealed/statement";

/** As the format has it, in characters. */
export const MOST_DEVICE_NAME = 64;
/** Bytes of an answer to a pairing that are read. */
const MOST_ANSWER = 64 * 1024;
const DEADLINE_MS = 30_000;

export const LINK_USED = "home-link-used";
const USED: Problem = {
  slug: LINK_USED,
  title: "This pairing link is not good any more",
  detail:
    "Each link pairs one device, within ten minutes, and only as long as the machine was not restarted. Make a new one there.",
  status: 0,
};
const NOT_YOURS: Problem = {
  slug: "home-not-yours",
  title: "This machine is not one of your account's",
  detail:
    "The link is for a machine of another account, or for one that was revoked. Sign in with the account that the machine is connected to, then open the link again.",
  status: 404,
};

/** What came of asking. */
export interface Introduced {
  /** `waiting`: somebody at home must let this browser in. */
  readonly state: "paired" | "waiting";
  /** Number of the statement that was accepted. */
  readonly seq: number;
}

/** Who introduces itself. */
export interface Newcomer {
  readonly device: Device;
  readonly name: string;
}

/**
 * Pairs by a link: sealed with its secret, to keys that its fingerprint vouches for.
 *
 * @param seen - the highest number of a statement that was accepted of this identity; 0 for none.
 * @throws ProblemError - it is not paired.
 */
export async function pairByLink(
  link: PairingLink,
  newcomer: Newcomer,
  seen: number,
  world: HomeWorld,
): Promise<Introduced> {
  return await timely(async (signal) => {
    const shared = await sharedSecret(link.secret);
    const statement = await statementOf(link, seen, world, signal);
    const ask = (to: Statement) => introduce(link, to, newcomer, world, signal, shared);
    try {
      return await ask(statement);
    } catch (error) {
      if (!isUnknownKey(error)) throw error;
    }
    const fresh = await statementOf(link, statement.seq, world, signal);
    try {
      return await ask(fresh);
    } catch (error) {
      if (!isUnknownKey(error)) throw error;
    }
    // Perhaps it worked before, and only the answer was lost.
    if (await isKnown(link, fresh, newcomer.device, world, signal))
      return { state: "paired", seq: fresh.seq };
    throw new ProblemError(USED);
  });
}

/**
 * Returns the fingerprint of whoever answers as a bridge. It is good for nothing before a person has compared the safety
 * words that are made of it.
 */
export async function claimedIdentity(bridgeId: string, world: HomeWorld): Promise<Bytes> {
  return await timely(async (signal) => {
    const text = await ofAccount(() => fetchStatement(bridgeId, world, signal));
    const fingerprint = await claimedFingerprint(text);
    await verified(text, { bridgeId, fingerprint }, 0, world);
    return fingerprint;
  });
}

/**
 * Asks to be let in, or how it stands with that. Nothing is told but this browser's key and name.
 *
 * @param bridge - with a fingerprint that was claimed at first.
 * @throws ProblemError - the home was not reached, or refuses.
 */
export async function askToBeLetIn(
  bridge: PinnedBridge,
  newcomer: Newcomer,
  world: HomeWorld,
): Promise<Introduced> {
  return await timely(async (signal) => {
    const statement = await statementOf(bridge, 0, world, signal);
    try {
      return await introduce(bridge, statement, newcomer, world, signal);
    } catch (error) {
      if (!isUnknownKey(error)) throw error;
      const fresh = await statementOf(bridge, statement.seq, world, signal);
      return await introduce(bridge, fresh, newcomer, world, signal);
    }
  });
}

async function introduce(
  { bridgeId }: PinnedBridge,
  statement: Statement,
  { device, name }: Newcomer,
  world: HomeWorld,
  signal: AbortSignal,
  shared?: Awaited<ReturnType<typeof sharedSecret>>,
): Promise<Introduced> {
  const answer = await askSealed(
    {
      bridgeId,
      config: statement.configs[0],
      device,
      method: "POST",
      path: PAIRING_PATH,
      fields: JSON_CONTENT,
      content: introduction(device, name),
      ...(shared !== undefined && { shared }),
    },
    world,
    signal,
  );
  const content = await textOf(answer);
  if (answer.status >= 300) throw new ProblemError(problemFrom(answer.status, content));
  return { state: isWaiting(answer.status, content) ? "waiting" : "paired", seq: statement.seq };
}

const JSON_CONTENT: Fields = [["content-type", "application/json"]];

/** Whether the home let it in, or keeps it as one that waits. */
function isWaiting(status: number, content: string): boolean {
  if (status === 202) return true;
  try {
    return fields(JSON.parse(content))["paired"] === false;
  } catch {
    return false;
  }
}

/** Whether the home answers this device at all. */
async function isKnown(
  { bridgeId }: PinnedBridge,
  statement: Statement,
  device: Device,
  world: HomeWorld,
  signal: AbortSignal,
): Promise<boolean> {
  const config = statement.configs[0];
  const asked = { bridgeId, config, device, method: "GET", path: "/c2l/home", fields: [] };
  const answer = await askSealed(asked, world, signal);
  await textOf(answer);
  return answer.status < 300;
}

async function statementOf(
  bridge: PinnedBridge,
  seen: number,
  world: HomeWorld,
  signal: AbortSignal,
): Promise<Statement> {
  const text = await ofAccount(() => fetchStatement(bridge.bridgeId, world, signal));
  return await verified(text, bridge, seen, world);
}

async function ofAccount<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProblemError && error.problem.status === 404) throw new ProblemError(NOT_YOURS);
    throw error;
  }
}

function isUnknownKey(error: unknown): boolean {
  return error instanceof ProblemError && error.problem.slug === OHTTP_KEY;
}

async function textOf(answer: SealedAnswer): Promise<string> {
  const parts: Bytes[] = [];
  let size = 0;
  for (let part = await answer.next(); part !== null; part = await answer.next()) {
    size += part.length;
    if (size > MOST_ANSWER) throw new BreakError();
    parts.push(part);
  }
  return new TextDecoder().decode(concat(...parts));
}

/** Does what must be done within a while. @throws ProblemError - also for a connection that broke. */
async function timely<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  try {
    return await work(signal);
  } catch (error) {
    if (!(error instanceof BreakError)) throw error;
    throw new ProblemError(error.problem.slug === null ? NO_CONTACT : error.problem);
  }
}
