/** One home's conversations on this page: kept equal to the home's, opened at once, changed at once. */

import type { HomeTransport } from "@/net/home/transport";
import type { Problem } from "@/net/problem";
import type { HomeCache } from "@/store/home/cache";
import { ALL_WANTED, digest } from "@/store/home/changes";
import type { Edit } from "@/store/home/edits";
import { type ChatWorld, Feed, type Position } from "@/store/home/feed";
import { withHeads, without, withTalk, withTalksOf } from "@/store/home/known";
import { HomeModel, type HomeView } from "@/store/home/model";
import { Outbox } from "@/store/home/outbox";
import { Reader } from "@/store/home/reader";
import { RunWatch } from "@/store/home/run-watch";
import { EMPTY_TALK, type Talk } from "@/store/home/tree";
import { NO_SHELF, type UnsentShelf } from "@/store/home/unsent";
import type { LiveAnswer } from "@/store/live-answer";

/** A connection that is back after so many milliseconds was not worth a word. */
const LOST_MS = 3_000;
/** What was seen is kept no oftener, in milliseconds. */
const SAVE_MS = 1_000;
/** Conversations of which the messages stay in memory; those opened last. */
const MOST_TALKS = 20;
/** Failures in a row after which it is said that what changed cannot be read. */
const MANY_FAILURES = 3;

export class HomeClient {
  readonly #closing = new AbortController();
  readonly #model: HomeModel;
  readonly #reader: Reader;
  readonly #outbox: Outbox;
  readonly #runs: RunWatch;
  #position: Position | null = null;
  #open: string | null = null;
  /** The one opened last at the end. */
  #opened: readonly string[] = [];
  #failures = 0;
  /** Whether what is kept of conversations and answers that are not there any more was removed. */
  #tidy = false;
  /** As the tab keeps it. */
  #unsent: readonly Edit[] = [];
  #losing: ReturnType<typeof setTimeout> | undefined;
  #saving: ReturnType<typeof setTimeout> | undefined;
  #savedTalk: Talk | undefined;

  constructor(
    bridgeId: string,
    readonly home: HomeTransport,
    readonly cache: HomeCache,
    readonly world: ChatWorld,
    onView: (view: HomeView) => void,
    readonly shelf: UnsentShelf = NO_SHELF,
  ) {
    const { signal } = this.#closing;
    this.#model = new HomeModel(bridgeId, (view) => {
      if (signal.aborted) return;
      this.#runs.look();
      this.#keepUnsent();
      this.#saveSoon();
      onView(view);
    });
    const model = this.#model;
    const events = {
      onDone: () => {
        this.#failures = 0;
        model.stick(null);
        this.#tidyUp();
        this.#saveSoon();
      },
      // What was heard a moment ago is the feed's to lose.
      onTrouble: (problem: Problem) => {
        this.#failures += 1;
        if (model.contact !== "live") this.#lose(problem);
        else if (this.#failures >= MANY_FAILURES) model.stick(problem);
      },
      isFollowed: (run: string) => this.#runs.isFollowed(run),
    };
    this.#reader = new Reader(home, model, events, signal, world);
    this.#outbox = new Outbox(home, model, (edit) => this.#reader.took(edit), signal, world);
    this.#runs = new RunWatch(home, model, cache, (id) => this.#readAgain(id), world);
  }

  get view(): HomeView {
    return this.#model.view;
  }

  /** Shows what was kept, then follows the home until `close`. */
  async start(): Promise<void> {
    this.#unsent = this.shelf.load();
    if (this.#unsent.length > 0) this.#outbox.add(this.#unsent);
    const kept = await this.cache.list();
    if (this.#closing.signal.aborted) return;
    if (kept !== null) {
      this.#position = { epoch: kept.epoch, seen: kept.seen };
      this.#model.learn((known) => ({ ...withHeads(known, kept.heads), listed: kept.listed }));
    }
    const feed = new Feed(
      this.home,
      {
        onReload: (position) => {
          this.#position = position;
          this.#tidy = false;
          this.#reader.doubt();
          this.#reader.want(ALL_WANTED);
          if (this.#open !== null) this.#readAgain(this.#open);
        },
        onChanges: ({ changes }, position) => {
          this.#position = position;
          const { wanted, gone } = digest(this.#model.shown, changes);
          if (gone.size > 0) this.#model.learn((known) => [...gone].reduce(without, known));
          for (const id of gone) void this.cache.forgetTalk(id);
          this.#reader.want(wanted);
        },
        onHeard: () => this.#hear(),
        onLost: (problem) => this.#lose(problem),
      },
      this.#closing.signal,
      this.world,
    );
    // What was kept says nothing of which runs go on.
    if (kept !== null) this.#reader.want({ ...ALL_WANTED, list: !kept.listed });
    await feed.run(this.#position);
  }

  close(): void {
    this.#save();
    this.#closing.abort();
    clearTimeout(this.#losing);
    clearTimeout(this.#saving);
    this.#runs.close();
  }

  /** Keeps a conversation whole, with the answers that are written in it; `null` for none. */
  open(conversation: string | null): void {
    if (this.#open === conversation) return;
    this.#save();
    this.#open = conversation;
    this.#savedTalk = undefined;
    if (conversation !== null) this.#dropTalks(conversation);
    this.#reader.open(conversation);
    this.#runs.open(conversation);
    if (conversation !== null) void this.#show(conversation);
  }

  /** Memory does not grow with each conversation that is looked at. */
  #dropTalks(conversation: string): void {
    const opened = [...this.#opened.filter((id) => id !== conversation), conversation];
    this.#opened = opened.slice(-MOST_TALKS);
    const wanted = this.#model.pending.map(({ edit }) => edit.conversation);
    const kept = new Set([...this.#opened, ...wanted]);
    if (this.#model.known.talks.size > MOST_TALKS) this.#model.learn((known) => withTalksOf(known, kept));
  }

  /** Shows at once what is wanted, and has the home do it. */
  want(...edits: readonly Edit[]): void {
    for (const edit of edits) if (edit.kind === "answer") this.#runs.expect(edit.run);
    this.#outbox.add(edits);
  }

  live(run: string): LiveAnswer | null {
    return this.#runs.live(run);
  }

  forgive(refusal: number): void {
    this.#model.forgive(refusal);
  }

  async #show(conversation: string): Promise<void> {
    const kept = await this.cache.talk(conversation);
    if (kept === null || this.#closing.signal.aborted) return;
    this.#model.learn((known) => {
      if (known.talks.has(conversation) || !known.heads.has(conversation)) return known;
      const talks = new Map(known.talks).set(conversation, EMPTY_TALK);
      return withTalk({ ...known, talks }, conversation, () => kept);
    });
  }

  #readAgain(conversation: string): void {
    this.#reader.readAgain(conversation);
  }

  #hear(): void {
    clearTimeout(this.#losing);
    this.#losing = undefined;
    this.#model.hear("live", null);
  }

  #lose(problem: Problem): void {
    const { contact } = this.#model;
    if (contact === "live") this.#losing ??= setTimeout(() => this.#model.hear("lost", problem), LOST_MS);
    else this.#model.hear("lost", problem);
  }

  #keepUnsent(): void {
    const unsent = this.#model.pending.filter(({ taken }) => taken === null).map(({ edit }) => edit);
    const before = this.#unsent;
    if (unsent.length === before.length && unsent.every((edit, place) => edit === before[place])) return;
    this.#unsent = unsent;
    this.shelf.save(unsent);
  }

  #tidyUp(): void {
    const { heads, running, listed } = this.#model.known;
    if (this.#tidy || !listed) return;
    this.#tidy = true;
    void this.cache.tidy(new Set(heads.keys()), new Set(running.keys()));
  }

  #saveSoon(): void {
    this.#saving ??= setTimeout(() => {
      this.#saving = undefined;
      this.#save();
    }, SAVE_MS);
  }

  #save(): void {
    const { known } = this.#model;
    const talk = this.#open === null ? undefined : known.talks.get(this.#open);
    if (this.#open !== null && talk !== undefined && talk !== this.#savedTalk) {
      this.#savedTalk = talk;
      void this.cache.saveTalk(this.#open, talk);
    }
    // Up to there, and no further, everything was read.
    if (this.#position !== null && this.#reader.isDone)
      void this.cache.saveList({
        ...this.#position,
        listed: known.listed,
        heads: [...known.heads.values()],
      });
  }
}
