/** Follows the answers that are written in the conversation that is open. */
import type { Run } from "@/net/home/api";
import { followRun } from "@/net/home/following-run";
import type { HomeTransport } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";
import type { HomeCache } from "@/store/home/cache";
import type { ChatWorld } from "@/store/home/feed";
import { learnEnd } from "@/store/home/known";
import type { HomeModel } from "@/store/home/model";
import { isActive } from "@/store/home/tree";
import { LiveAnswer } from "@/store/live-answer";

/** At most this much of an arriving answer is asked for again when the page is opened anew. */
const SAVE_EVERY_MS = 1_000;

export class RunWatch {
  /** By run. */
  readonly #lives = new Map<string, LiveAnswer>();
  readonly #following = new Map<string, AbortController>();
  /** Runs that the home would not let anybody follow. */
  readonly #refused = new Set<string>();
  #open: string | null = null;

  /** @param onLost - told of a conversation in which a run could not be followed. */
  constructor(
    readonly home: HomeTransport,
    readonly model: HomeModel,
    readonly cache: HomeCache,
    readonly onLost: (conversation: string) => void,
    readonly world: ChatWorld,
  ) {}

  isFollowed(run: string): boolean {
    return this.#following.has(run);
  }

  /** The answer of a run, to be written to the page; `null` if it does not arrive here. */
  live(run: string): LiveAnswer | null {
    return this.#lives.get(run) ?? null;
  }

  /** An answer is asked for from here: its time runs. */
  expect(run: string): void {
    this.#lives.set(run, this.#liveOf(run, this.world.now()));
  }

  open(conversation: string | null): void {
    this.#open = conversation;
    this.#refused.clear();
    this.look();
  }

  /** Looks what there is to follow by now. */
  look(): void {
    const talk = this.#open === null ? undefined : this.model.known.talks.get(this.#open);
    const runs = new Map(
      [...(talk?.runs ?? [])].filter(([id, run]) => isActive(run) && !this.#refused.has(id)),
    );
    for (const [id, link] of this.#following) if (!runs.has(id)) link.abort();
    for (const run of runs.values()) if (!this.#following.has(run.id)) void this.#follow(run);
    this.#forgetEnded();
  }

  /** What ended while nobody here followed it, or was never begun, is read with its conversation. */
  #forgetEnded(): void {
    for (const [run, live] of [...this.#lives])
      if (!this.#following.has(run) && !this.#mayGoOn(run)) this.#forget(run, live);
  }

  #mayGoOn(run: string): boolean {
    const { known, pending, contact } = this.model;
    if (pending.some(({ edit }) => edit.kind === "answer" && edit.run === run)) return true;
    const talk = [...known.talks.values()].find(({ runs }) => runs.has(run));
    const seen = talk?.runs.get(run);
    // Of what is in no conversation that is known, only a home that is heard can tell.
    return seen === undefined ? contact !== "live" || known.running.has(run) : isActive(seen);
  }

  #forget(run: string, live: LiveAnswer): void {
    live.end();
    this.#lives.delete(run);
    const phases = new Map(this.model.phases);
    phases.delete(run);
    this.model.phases = phases;
    void this.cache.forgetLive(run);
  }

  close(): void {
    this.#open = null;
    for (const link of this.#following.values()) link.abort();
  }

  #liveOf(run: string, startedAt: number | null): LiveAnswer {
    const { model, world } = this;
    const live: LiveAnswer = new LiveAnswer(startedAt, world.now, () => {
      if (this.#lives.get(run) !== live) return;
      model.phases = new Map(model.phases).set(run, live.phase);
      model.tell();
    });
    return live;
  }

  async #follow({ id, conversation }: Run): Promise<void> {
    const link = new AbortController();
    this.#following.set(id, link);
    let live = this.#lives.get(id);
    if (live === undefined) {
      live = this.#liveOf(id, null);
      this.#lives.set(id, live);
      live.restore((await this.cache.live(id)) ?? []);
    }
    const stopSaving = this.#save(id, live);
    let ended: Run | null = null;
    try {
      if (!link.signal.aborted) ended = await followRun(this.home, id, live, link.signal, this.world);
    } catch (error) {
      if (!link.signal.aborted) {
        if (!(error instanceof ProblemError)) throw error;
        this.#refused.add(id);
      }
    } finally {
      stopSaving();
      this.#following.delete(id);
    }
    if (ended !== null) this.#ended(ended, live);
    else if (this.#refused.has(id)) this.#lost(id, conversation, live);
    else this.look();
  }

  #ended(run: Run, live: LiveAnswer): void {
    const { model } = this;
    this.#forget(run.id, live);
    const figures = live.figures(run);
    if (figures !== null) model.figures = new Map(model.figures).set(run.id, figures);
    const { text: content, thought: thinking, toolCalls: tool_calls } = live;
    model.learn((known) => learnEnd(known, run, { content, thinking, tool_calls }));
  }

  #lost(run: string, conversation: string, live: LiveAnswer): void {
    this.#forget(run, live);
    this.onLost(conversation);
  }

  #save(run: string, live: LiveAnswer): () => void {
    let saved = live.offset;
    const save = () => {
      if (live.offset === saved) return;
      saved = live.offset;
      void this.cache.saveLive(run, live.segments);
    };
    const timer = setInterval(save, SAVE_EVERY_MS);
    // A page that is hidden may be closed without another word.
    const stop = this.world.onVisibility(save);
    return () => {
      clearInterval(timer);
      stop();
    };
  }
}
