/** Sends edits, one after another, again and again until the home has taken or refused them. */
import {
  addMessage,
  chooseMessage,
  createConversation,
  deleteConversation,
  editConversation,
  editMessage,
  startRun,
  stopRun,
} from "@/net/home/api";
import { RefusedError } from "@/net/home/request";
import { mayPass, Retrying } from "@/net/home/retrying";
import type { HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { ProblemError } from "@/net/problem";
import { type Answer, afterRefusal, answerMessage, type Edit } from "@/store/home/edits";
import { type Known, learnMessage, learnRun, withNew, without } from "@/store/home/known";
import type { HomeModel } from "@/store/home/model";
import { isActive } from "@/store/home/tree";

/** What the home made of an edit. */
interface Taken {
  readonly edit: Edit;
  readonly learn: (known: Known) => Known;
}

export class Outbox {
  readonly #retrying: Retrying;
  #sending = false;

  /** @param onTaken - told of an edit that the home took; returns the turn of reading in which that was. */
  constructor(
    readonly home: HomeTransport,
    readonly model: HomeModel,
    readonly onTaken: (edit: Edit) => number,
    readonly signal: AbortSignal,
    readonly world: HomeWorld,
  ) {
    this.#retrying = new Retrying(signal, world);
  }

  add(edits: readonly Edit[]): void {
    const pending = edits.map((edit) => ({ edit, taken: null }));
    this.model.change({ pending: [...this.model.pending, ...pending] });
    void this.#send();
  }

  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      for (;;) {
        const next = this.model.pending.find(({ taken }) => taken === null);
        if (next === undefined || this.signal.aborted) return;
        await this.#try(next.edit);
      }
    } finally {
      this.#sending = false;
    }
  }

  async #try(edit: Edit): Promise<void> {
    try {
      const taken = await deliver(this.home, edit, this.signal);
      this.#retrying.good();
      this.#took(edit, taken);
    } catch (error) {
      if (this.signal.aborted) return;
      if (!(error instanceof ProblemError)) throw error;
      if (error instanceof RefusedError && !mayPass(error.problem)) this.#refused(edit, error);
      else await this.#retrying.wait(error.problem.retryAfterS);
    }
  }

  #took(edit: Edit, taken: Taken): void {
    const { model } = this;
    const turn = this.onTaken(taken.edit);
    const over = edit.kind === "stop" || edit.kind === "delete";
    const pending = model.pending.flatMap((each) => {
      if (each.edit !== edit) return [each];
      return over ? [] : [{ edit: taken.edit, taken: turn }];
    });
    model.change({ known: taken.learn(model.known), pending });
  }

  #refused(edit: Edit, { problem }: RefusedError): void {
    const { model } = this;
    const { kept, dropped } = afterRefusal(model.pending, edit);
    model.change({ pending: kept });
    this.onTaken(edit);
    // What is not there any more has stopped, and needs no deleting.
    const moot = edit.kind === "stop" || (edit.kind === "delete" && problem.status === 404);
    if (!moot) model.refuse(edit.conversation, problem, dropped);
  }
}

async function deliver(home: HomeTransport, edit: Edit, signal: AbortSignal): Promise<Taken> {
  const { conversation } = edit;
  const same = (known: Known) => known;
  switch (edit.kind) {
    case "create": {
      const head = await createConversation(home, { id: conversation, title: edit.title }, signal);
      return { edit, learn: (known) => withNew(known, head) };
    }
    case "rename":
      await editConversation(home, conversation, { title: edit.title }, signal);
      return { edit, learn: same };
    case "pin":
      await editConversation(home, conversation, { pinned: edit.pinned }, signal);
      return { edit, learn: same };
    case "delete":
      await deleteConversation(home, conversation, signal);
      return { edit, learn: (known) => without(known, conversation) };
    case "say": {
      const { message: id, parent, content } = edit;
      const attachments = edit.attachments.map(({ sha256, name, media_type }) => ({
        sha256,
        name,
        media_type,
      }));
      const body = { role: "user", id, parent, content, attachments };
      const message = await addMessage(home, conversation, body, signal);
      return { edit, learn: (known) => learnMessage(known, conversation, message) };
    }
    case "rewrite": {
      const { id, content } = edit;
      const message = await editMessage(home, conversation, edit.message, { id, content }, signal);
      return { edit, learn: (known) => learnMessage(known, conversation, message) };
    }
    case "choose":
      await chooseMessage(home, conversation, edit.message, signal);
      return { edit, learn: same };
    case "answer": {
      const { model, parent, run: id } = edit;
      const run = await startRun(home, conversation, { model, parent, id }, signal);
      const named: Answer = { ...edit, message: run.message };
      // One that has ended by now (asked for again after a lost answer) is not learned here: its message is not empty. It
      // is followed to its end already, or has to be read.
      const learn = (known: Known) =>
        isActive(run) ? learnRun(learnMessage(known, conversation, answerMessage(named)), run) : known;
      return { edit: named, learn };
    }
    case "stop":
      await stopRun(home, edit.run, signal);
      return { edit, learn: same };
  }
}
