/** The way home through the cloud, which can read none of it (docs/reference/sealed-format.md). */
import { BreakError, follow, type Part } from "@/net/home/following";
import { DEVICE_UNKNOWN, MOST_PROBLEM, NO_CONTINUATION, OTHER_IDENTITY } from "@/net/home/problems";
import { askSealed, type SealedAnswer } from "@/net/home/sealing";
import { type PinnedBridge, type SeqMemory, Statements } from "@/net/home/statements";
import type { HomeRequest, HomeResponse, HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { BAD_REQUEST, OHTTP_KEY, type Problem, ProblemError, problemFrom } from "@/net/problem";
import { type Bytes, concat, fromBase64Url } from "@/protocol/sealed/bytes";
import type { Device } from "@/protocol/sealed/device";
import { SealedError } from "@/protocol/sealed/errors";
import { type Field, single } from "@/protocol/sealed/fields";
import { EXCHANGE_BYTES, readOffset, resumeFields } from "@/protocol/sealed/resume";
import type { Statement } from "@/protocol/sealed/statement";

/** A home that this browser is paired with. */
export interface SealedHome extends PinnedBridge {
  readonly device: Pick<Device, "id" | "privateKey">;
}

/** What stands between this browser and a home until somebody does something about it. */
export type Trouble = "other-identity" | "removed";

/** What is remembered of a home. */
export interface HomeMemory extends SeqMemory {
  /** Told at each answer; `null` for a good one. */
  onTrouble(trouble: Trouble | null): void;
}

export class SealedTransport implements HomeTransport {
  readonly #statements: Statements;
  /** How to break off the connections that wait for something just now, with the statement that each was made under. */
  readonly #waiting = new Map<() => void, Statement>();

  constructor(
    readonly home: SealedHome,
    readonly memory: HomeMemory,
    readonly world: HomeWorld,
  ) {
    this.#statements = new Statements(home, memory, world);
  }

  fetch(request: HomeRequest, signal: AbortSignal): Promise<HomeResponse> {
    return follow((...asked) => this.#connect(...asked), request, signal, this.world);
  }

  async #connect(request: HomeRequest, offset: number, link: AbortSignal): Promise<Part> {
    let statement = await this.#statement(link);
    let answer: SealedAnswer;
    try {
      answer = await this.#ask(statement, request, offset, link);
    } catch (error) {
      if (!(error instanceof ProblemError) || !isAboutKeys(error.problem)) throw error;
      // The machine was restarted, or its keys were replaced: once more, to the present ones.
      const present = await this.#statement(link, statement);
      if (error.problem.slug !== OHTTP_KEY && present.seq <= statement.seq) throw error;
      statement = present;
      this.#breakOff(statement);
      answer = await this.#ask(statement, request, offset, link);
    }
    const heard = answer.status === 401 ? await this.#unlessRemoved(answer) : answer;
    this.memory.onTrouble(null);
    const part = asPart(heard);
    const made = statement;
    return { ...part, next: () => this.#unlessRestarted(made, () => part.next()) };
  }

  /**
   * A home that was killed cannot end its answers, and the cloud goes on waiting for it. What was asked under a key that
   * it does not know any more brings nothing. Requests that learn of it together fetch the same statement each for itself.
   */
  #breakOff(present: Statement): void {
    for (const [breakOff, made] of [...this.#waiting]) if (made.seq < present.seq) breakOff();
  }

  #unlessRestarted<T>(made: Statement, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const breakOff = () => reject(new BreakError());
      this.#waiting.set(breakOff, made);
      work()
        .then(resolve, reject)
        .finally(() => this.#waiting.delete(breakOff));
    });
  }

  async #statement(link: AbortSignal, refused?: Statement): Promise<Statement> {
    try {
      return await this.#statements.get(link, refused);
    } catch (error) {
      if (error instanceof ProblemError && error.problem.slug === OTHER_IDENTITY)
        this.memory.onTrouble("other-identity");
      throw error;
    }
  }

  async #ask(statement: Statement, request: HomeRequest, offset: number, link: AbortSignal) {
    const { method, path, headers, exchange, content } = request;
    const { bridgeId, device } = this.home;
    const named =
      exchange === undefined
        ? []
        : resumeFields(fromBase64Url(exchange, "an exchange", EXCHANGE_BYTES), offset);
    const fields: Field[] = [...named, ...Object.entries(headers ?? {})];
    const config = statement.configs[0];
    // Whoever has a part of the answer has been heard; the question need not be said again.
    const said = offset === 0 ? content : undefined;
    return await askSealed(
      { bridgeId, config, device, method, path, fields, content: said },
      this.world,
      link,
    );
  }

  /**
   * Believed only because it came sealed: in the clear, the cloud could say it.
   *
   * @throws ProblemError - the home does not know this device.
   */
  async #unlessRemoved(answer: SealedAnswer): Promise<SealedAnswer> {
    const type = single(answer.fields, "content-type") ?? "";
    if (!type.startsWith("application/problem+json")) return answer;
    const taken: Bytes[] = [];
    let size = 0;
    while (size < MOST_PROBLEM) {
      const bytes = await answer.next();
      if (bytes === null) break;
      taken.push(bytes);
      size += bytes.length;
    }
    const problem = problemFrom(answer.status, new TextDecoder().decode(concat(...taken)));
    if (problem.slug === DEVICE_UNKNOWN) {
      this.memory.onTrouble("removed");
      throw new ProblemError(problem);
    }
    const { status, fields } = answer;
    return { status, fields, next: async () => taken.shift() ?? (await answer.next()) };
  }
}

/**
 * Whether a refusal in the clear may come of keys that were replaced. Their ids are one byte, so that one time in 256 new
 * keys have the old ones' id, and what was sealed to these is taken for damaged.
 */
function isAboutKeys({ slug }: Problem): boolean {
  return slug === OHTTP_KEY || slug === BAD_REQUEST;
}

function asPart(answer: SealedAnswer): Part {
  let offset: number | null;
  try {
    offset = single(answer.fields, "c2l-offset") === undefined ? null : readOffset(answer.fields);
  } catch (error) {
    if (error instanceof SealedError) throw new BreakError(NO_CONTINUATION);
    throw error;
  }
  const headers = new Headers(answer.fields.map(([name, value]) => [name, value]));
  return { status: answer.status, headers, offset, next: () => answer.next() };
}
