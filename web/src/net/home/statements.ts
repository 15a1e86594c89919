/** The keys that messages to a home are sealed to, as its pinned identity states them. */
import { REQUEST_FIELD } from "@/net/call";
import { BreakError } from "@/net/home/following";
import { NOT_SEALED, statementProblem } from "@/net/home/problems";
import type { HomeWorld } from "@/net/home/world";
import { ProblemError, problemFrom } from "@/net/problem";
import { type Bytes, sameBytes } from "@/protocol/sealed/bytes";
import { SealedError } from "@/protocol/sealed/errors";
import { claimedFingerprint, type Statement, verifyStatement } from "@/protocol/sealed/statement";

const STATEMENT_TYPE = "application/c2l-keys+jwt";
/** Characters of a statement that are read; the format's own limit is below it. */
const MOST_TEXT = 16_384;

/** The highest number of a statement that was accepted of an identity, kept for good. */
export interface SeqMemory {
  highest(): Promise<number>;
  accept(seq: number): Promise<void>;
}

/** Who is asked for. */
export interface PinnedBridge {
  readonly bridgeId: string;
  readonly fingerprint: Bytes;
}

export function sealedPath(bridgeId: string): string {
  return `/e2e/${bridgeId}`;
}

/** @throws BreakError, ProblemError - as `Connect`. */
export async function fetchStatement(bridgeId: string, world: HomeWorld, link: AbortSignal): Promise<string> {
  let response: Response;
  let text: string;
  try {
    response = await world.fetch(sealedPath(bridgeId), {
      headers: REQUEST_FIELD,
      signal: link,
      cache: "no-store",
    });
    text = await response.text();
  } catch {
    throw new BreakError();
  }
  if (!response.ok) throw new ProblemError(problemFrom(response.status, text));
  const type = response.headers.get("content-type")?.split(";")[0]?.trim();
  if (type !== STATEMENT_TYPE || text.length > MOST_TEXT) throw new ProblemError(NOT_SEALED);
  return text;
}

/** @throws ProblemError - it does not hold. */
export async function verified(
  text: string,
  { bridgeId, fingerprint }: PinnedBridge,
  seen: number,
  world: HomeWorld,
): Promise<Statement> {
  try {
    return await verifyStatement(text, { pinned: fingerprint, bridgeId, now: world.date() / 1000, seen });
  } catch (error) {
    if (!(error instanceof SealedError)) throw error;
    throw new ProblemError(statementProblem(error, await isAnothers(text, fingerprint)));
  }
}

async function isAnothers(text: string, pinned: Bytes): Promise<boolean> {
  try {
    return !sameBytes(await claimedFingerprint(text), pinned);
  } catch {
    return false;
  }
}

/** Keeps a home's statement while it holds. */
export class Statements {
  #current: Statement | undefined;

  constructor(
    readonly bridge: PinnedBridge,
    readonly memory: SeqMemory,
    readonly world: HomeWorld,
  ) {}

  /**
   * Returns a statement that holds now.
   *
   * @param refused - one that the home has said it does not know the key of.
   */
  async get(link: AbortSignal, refused?: Statement): Promise<Statement> {
    const now = this.world.date() / 1000;
    const current = this.#current;
    if (current !== undefined && current !== refused && now < current.expires && now >= current.issued - 120)
      return current;
    const text = await fetchStatement(this.bridge.bridgeId, this.world, link);
    const statement = await verified(text, this.bridge, await this.memory.highest(), this.world);
    await this.memory.accept(statement.seq);
    const newest = this.#current;
    // Another request may have fetched a newer one meanwhile.
    if (newest !== undefined && newest !== refused && newest.seq > statement.seq) return newest;
    this.#current = statement;
    return statement;
  }
}
