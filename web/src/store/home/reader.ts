/** Reads from a home what changed there, one thing after another. */
import {
  type Conversation,
  getConversation,
  listConversations,
  listRuns,
  type WholeConversation,
} from "@/net/home/api";
import { RefusedError } from "@/net/home/request";
import { mayPass, Retrying } from "@/net/home/retrying";
import type { HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { type Problem, ProblemError } from "@/net/problem";
import { bothWanted, isNothing, NONE_WANTED, type Wanted, wholesOf } from "@/store/home/changes";
import type { Edit } from "@/store/home/edits";
import { overdueRuns, withHeads, withList, without, withRunning, withWhole } from "@/store/home/known";
import type { HomeModel } from "@/store/home/model";
import { messageOf } from "@/store/home/tree";

/** Changes of one transaction come together; what follows within so many milliseconds is read with them. */
const GATHER_MS = 30;
/** What changed last stands at the head of the list; there most of what changed is found. */
const FIRST_PAGE = 50;
const PAGE = 200;
/** Conversations that are read one by one rather than the whole list. */
const MOST_SINGLE = 3;
/** So often the list may change under the reader so much that it has to begin again. */
const MOST_TRIES = 5;

export interface ReaderEvents {
  /** All that was wanted is read. */
  onDone(): void;
  onTrouble(problem: Problem): void;
  /** Whether somebody follows a run here, and so learns how it ends. */
  isFollowed(run: string): boolean;
}

export class Reader {
  /** The conversation that is kept whole. */
  #open: string | null = null;
  /** Conversations that were read whole and kept so since. */
  readonly #fresh = new Set<string>();
  #wanted: Wanted = NONE_WANTED;
  #reading = false;
  /** Counts the rounds of reading. */
  #turn = 0;
  readonly #retrying: Retrying;

  constructor(
    readonly home: HomeTransport,
    readonly model: HomeModel,
    readonly events: ReaderEvents,
    readonly signal: AbortSignal,
    readonly world: HomeWorld,
  ) {
    this.#retrying = new Retrying(signal, world);
  }

  get isDone(): boolean {
    return !this.#reading && isNothing(this.#wanted);
  }

  open(conversation: string | null): void {
    this.#open = conversation;
    if (conversation === null || !this.#isHad(conversation)) return;
    if (!this.#fresh.has(conversation) || !this.model.known.talks.has(conversation))
      this.readAgain(conversation);
  }

  readAgain(conversation: string): void {
    this.want({ ...NONE_WANTED, wholes: new Set([conversation]) });
  }

  /** Whether the home has it, as far as is known here: what is only wanted yet cannot be read. */
  #isHad(conversation: string): boolean {
    const created = this.model.pending.some(
      ({ edit, taken }) => edit.kind === "create" && edit.conversation === conversation && taken === null,
    );
    return !created;
  }

  /** Nothing that was read is right any more. */
  doubt(): void {
    this.#fresh.clear();
  }

  /** The home took, or refused, an edit. Returns the turn in which that was. */
  took({ conversation, kind }: Edit): number {
    if (kind === "create") this.#fresh.add(conversation);
    if (kind === "delete") this.#fresh.delete(conversation);
    this.want({ ...NONE_WANTED, heads: new Set([conversation]) });
    return this.#turn;
  }

  want(wanted: Wanted): void {
    this.#wanted = bothWanted(this.#wanted, wanted);
    void this.#read();
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (!isNothing(this.#wanted)) {
        await this.world.sleep(GATHER_MS, this.signal);
        if (this.signal.aborted) return;
        const wanted = this.#wanted;
        this.#wanted = NONE_WANTED;
        await this.#try(wanted);
      }
    } finally {
      this.#reading = false;
    }
    this.events.onDone();
  }

  async #try(wanted: Wanted): Promise<void> {
    this.#turn += 1;
    const turn = this.#turn;
    try {
      await this.#turnOf(wanted, turn);
      this.#retrying.good();
    } catch (error) {
      if (this.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      this.#wanted = bothWanted(wanted, this.#wanted);
      if (!(error instanceof RefusedError && mayPass(error.problem))) this.events.onTrouble(error.problem);
      await this.#retrying.wait(error.problem.retryAfterS);
    }
  }

  async #turnOf(wanted: Wanted, turn: number): Promise<void> {
    const { model } = this;
    if (wanted.list) await this.#readList();
    else if (wanted.heads.size > 0) await this.#readHeads(wanted.heads);
    if (wanted.running) {
      const { runs } = await listRuns(this.home, this.signal);
      model.learn((known) => withRunning(known, runs));
    }
    const wholes = new Set(wholesOf(model.shown, wanted));
    for (const conversation of wholes) if (conversation !== this.#open) this.#fresh.delete(conversation);
    if (this.#open !== null && this.#needsWhole(this.#open, wholes, turn)) await this.#readWhole(this.#open);
    // What the home took before this turn has been read in it.
    const pending = model.pending.filter(({ taken }) => taken === null || taken >= turn);
    if (pending.length !== model.pending.length) model.change({ pending });
  }

  #needsWhole(open: string, wholes: ReadonlySet<string>, turn: number): boolean {
    const { known } = this.model;
    if (!known.heads.has(open) || !this.#isHad(open)) return false;
    const talk = known.talks.get(open);
    if (talk === undefined || wholes.has(open)) return true;
    if (overdueRuns(known, open).some(({ id }) => !this.events.isFollowed(id))) return true;
    return this.model.pending.some(({ edit, taken }) => {
      if (edit.conversation !== open || taken === null || taken >= turn) return false;
      const made =
        edit.kind === "rewrite"
          ? edit.id
          : edit.kind === "say" || edit.kind === "answer"
            ? edit.message
            : null;
      return made !== null && messageOf(talk, made) === undefined;
    });
  }

  async #readHeads(wanted: ReadonlySet<string>): Promise<void> {
    const page = await listConversations(this.home, { limit: FIRST_PAGE }, this.signal);
    this.model.learn((known) => withHeads(known, page.conversations));
    const found = new Set(page.conversations.map(({ id }) => id));
    const rest = [...wanted].filter((id) => !found.has(id) && this.#isHad(id));
    if (rest.length > MOST_SINGLE) await this.#readList();
    else for (const id of rest) await this.#readWhole(id);
  }

  async #readWhole(id: string): Promise<void> {
    let whole: WholeConversation;
    try {
      whole = await getConversation(this.home, id, this.signal);
    } catch (error) {
      if (!(error instanceof RefusedError && error.problem.status === 404)) throw error;
      this.#fresh.delete(id);
      this.model.learn((known) => without(known, id));
      return;
    }
    if (id === this.#open) this.#fresh.add(id);
    this.model.learn((known) => withWhole(known, whole));
  }

  async #readList(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const heads = await this.#pages(attempt === MOST_TRIES);
      if (heads === null) continue;
      this.model.learn((known) => withList(known, heads));
      return;
    }
  }

  /** Returns the whole list; `null` if it has to be begun again. */
  async #pages(last: boolean): Promise<readonly Conversation[] | null> {
    const heads = new Map<string, Conversation>();
    let after: string | null = null;
    do {
      try {
        const page = await listConversations(this.home, { after, limit: PAGE }, this.signal);
        for (const head of page.conversations) heads.set(head.id, head);
        this.model.learn((known) => withHeads(known, page.conversations));
        after = page.after;
      } catch (error) {
        // The conversation at which the next page begins was deleted meanwhile.
        if (last || !(error instanceof RefusedError && error.problem.status === 404)) throw error;
        return null;
      }
    } while (after !== null);
    return [...heads.values()];
  }
}
