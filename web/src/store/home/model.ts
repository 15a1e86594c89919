/** One home's conversations as this page has them: what is known, what is wanted of it, and what to show. */
import type { Problem } from "@/net/problem";
import type { Edit, Pending } from "@/store/home/edits";
import { withEdits } from "@/store/home/edits";
import { type Known, NOTHING } from "@/store/home/known";
import type { Figures, Phase } from "@/store/live-answer";

/** `opening`: it was not heard of yet. `lost`: what is shown is what was seen last. */
export type Contact = "opening" | "live" | "lost";

/** What the home would not do. */
export interface Refusal {
  readonly id: number;
  readonly conversation: string;
  readonly problem: Problem;
  /** What was refused, and what hung on it. */
  readonly edits: readonly Edit[];
}

export interface HomeView {
  readonly bridgeId: string;
  readonly contact: Contact;
  /** Why it is lost. */
  readonly problem: Problem | null;
  /** Why what changed cannot be read again and again, though the home is heard of. */
  readonly stuck: Problem | null;
  /** What is known, with what is wanted laid over it. */
  readonly shown: Known;
  readonly pending: readonly Pending[];
  readonly refusals: readonly Refusal[];
  /** Of answers that arrive here, by run. */
  readonly phases: ReadonlyMap<string, Phase>;
  /** Of answers that ended here, by run. */
  readonly figures: ReadonlyMap<string, Figures>;
}

export class HomeModel {
  #known: Known = NOTHING;
  #pending: readonly Pending[] = [];
  #shown: Known | null = null;
  #refusals: readonly Refusal[] = [];
  #refused = 0;
  contact: Contact = "opening";
  problem: Problem | null = null;
  stuck: Problem | null = null;
  phases: ReadonlyMap<string, Phase> = new Map();
  figures: ReadonlyMap<string, Figures> = new Map();
  #told = false;

  constructor(
    readonly bridgeId: string,
    readonly onView: (view: HomeView) => void,
  ) {}

  get known(): Known {
    return this.#known;
  }

  get pending(): readonly Pending[] {
    return this.#pending;
  }

  get shown(): Known {
    this.#shown ??= withEdits(this.#known, this.#pending);
    return this.#shown;
  }

  learn(change: (known: Known) => Known): void {
    this.change({ known: change(this.#known) });
  }

  change({ known, pending }: { known?: Known; pending?: readonly Pending[] }): void {
    this.#known = known ?? this.#known;
    this.#pending = pending ?? this.#pending;
    this.#shown = null;
    this.tell();
  }

  hear(contact: Contact, problem: Problem | null): void {
    if (this.contact === contact && this.problem === problem) return;
    this.contact = contact;
    this.problem = problem;
    this.tell();
  }

  /** What changed cannot be read; `null`: it was. */
  stick(problem: Problem | null): void {
    if (this.stuck === problem) return;
    this.stuck = problem;
    this.tell();
  }

  refuse(conversation: string, problem: Problem, edits: readonly Edit[]): void {
    this.#refused += 1;
    const refusal = { id: this.#refused, conversation, problem, edits };
    this.#refusals = [...this.#refusals.slice(-9), refusal];
    this.tell();
  }

  forgive(id: number): void {
    this.#refusals = this.#refusals.filter((refusal) => refusal.id !== id);
    this.tell();
  }

  /** Tells what is to be shown, once for all that changes just now. */
  tell(): void {
    if (this.#told) return;
    this.#told = true;
    queueMicrotask(() => {
      this.#told = false;
      this.onView(this.view);
    });
  }

  get view(): HomeView {
    const { bridgeId, contact, problem, stuck, shown, phases, figures } = this;
    const [pending, refusals] = [this.#pending, this.#refusals];
    return { bridgeId, contact, problem, stuck, shown, pending, refusals, phases, figures };
  }
}
