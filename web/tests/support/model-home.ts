/**
 * A home as the home API describes it, in memory: conversations, runs, changes. It can lose requests before or after it
 * did what they ask, break streams, be away, and be killed with the last of its runs' text not written down.
 */
import type { Change, Conversation, Message, Run, RunEvent } from "@/net/home/api";
import type { HomeRequest, HomeResponse, HomeTransport } from "@/net/home/transport";
import { broken, cut, isActive, json, type Piece, Refused, Stream, Streams, sizeOf } from "./model-wire";

const encoder = new TextEncoder();

interface LiveRun {
  run: Run;
  /** What it has said. */
  pieces: Piece[];
  /** Bytes of that which are written down. */
  stored: number;
}

export class ModelHome {
  epoch = "epoch-1";
  floor = 0;
  readonly conversations = new Map<string, Conversation>();
  readonly messages = new Map<string, Message[]>();
  readonly runs = new Map<string, LiveRun>();
  readonly changes: Change[] = [];
  away = false;
  /** What a request of so and so is refused with, once. */
  readonly refusals = new Map<string, { status: number; slug: string }>();
  /** Everything that was asked: method and path. */
  readonly asked: string[] = [];
  #n = 0;
  #clock = 1_700_000_000;
  readonly #streams = new Streams();

  // --- what a test does to it ------------------------------------------------------------------------------------

  /** Lets a run say something. */
  say(run: string, text: string, kind: Piece["kind"] = "content"): void {
    const live = this.#run(run);
    live.pieces.push({ kind, text });
    if (live.run.state !== "streaming") this.#become(live, { state: "streaming" });
    this.#ring();
  }

  /** Writes down what runs have said, as a home does every 0.2 s. */
  store(): void {
    for (const live of this.runs.values()) {
      live.stored = sizeOf(live.pieces);
      live.run = { ...live.run, size: live.stored };
    }
  }

  finish(run: string, change: Partial<Run> = { state: "done" }): void {
    const live = this.#run(run);
    if (!isActive(live.run)) return;
    this.store();
    const { conversation, message } = live.run;
    const texts = (kind: Piece["kind"]) =>
      live.pieces.filter((piece) => piece.kind === kind).map(({ text }) => text);
    this.#setMessages(
      conversation,
      this.#of(conversation).map((each) =>
        each.id === message
          ? {
              ...each,
              content: texts("content").join(""),
              thinking: texts("thinking").join(""),
              tool_calls: texts("tool_call").join("").split("\n").slice(0, -1),
            }
          : each,
      ),
    );
    this.#become(live, { ended: this.#now(), answer_tokens: 3, ...change });
    this.#changed("message", message, conversation);
    this.#touch(conversation);
    this.#ring();
  }

  /** Ends it without a word, and starts it again: what was not written down is lost. */
  kill(): void {
    for (const live of this.runs.values()) {
      if (!isActive(live.run)) continue;
      live.pieces = cut(live.pieces, live.stored);
      live.run = { ...live.run, state: "queued" };
    }
    this.breakStreams();
  }

  breakStreams(): void {
    this.#streams.break();
  }

  /** Changes are forgotten, as after a long time. */
  forget(): void {
    this.floor = this.#n;
    this.changes.length = 0;
    this.breakStreams();
  }

  /** Somebody deletes a message, unless an answer is being written below it. */
  deleteMessage(conversation: string, id: string): void {
    try {
      this.#deleteMessage(conversation, id);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }

  active(): string[] {
    return [...this.runs.values()].filter(({ run }) => isActive(run)).map(({ run }) => run.id);
  }

  messagesOf(conversation: string): readonly Message[] {
    return this.#of(conversation);
  }

  textOf(run: string): string {
    return this.#run(run)
      .pieces.filter(({ kind }) => kind === "content")
      .map(({ text }) => text)
      .join("");
  }

  // --- the way to it ---------------------------------------------------------------------------------------------

  /**
   * @param fault - what happens to a request on its way: it or its answer is lost.
   * @param pace - how long each way takes.
   */
  transport(
    fault: (request: HomeRequest) => "none" | "before" | "after" = () => "none",
    pace: () => Promise<void> = () => Promise.resolve(),
  ): HomeTransport {
    return {
      fetch: async (request, signal) => {
        await pace();
        signal.throwIfAborted();
        const what = fault(request);
        if (this.away || what === "before") throw broken();
        this.asked.push(`${request.method} ${request.path.split("?")[0]}`);
        const response = this.#respond(request, signal);
        await pace();
        if (what === "after") throw broken();
        return response;
      },
    };
  }

  #respond(request: HomeRequest, signal: AbortSignal): HomeResponse {
    const { method, path, content } = request;
    const url = new URL(path, "https://home");
    const parts = url.pathname.split("/").slice(2);
    const body: unknown = content === undefined ? undefined : JSON.parse(new TextDecoder().decode(content));
    const key = `${method} ${url.pathname}`;
    const refusal = [...this.refusals].find(([pattern]) => key.includes(pattern));
    try {
      if (refusal !== undefined) {
        this.refusals.delete(refusal[0]);
        throw new Refused(refusal[1].status, refusal[1].slug);
      }
      const answer = this.#route(method, parts, url.searchParams, body as Record<string, never>);
      return answer instanceof Stream
        ? this.#streams.begin(answer, signal)
        : json(answer === undefined ? 204 : 200, answer);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const { status, slug } = error;
      return json(status, {
        type: `urn:c2l:problem:${slug}`,
        title: slug,
        status,
        detail: "as the test wants",
      });
    }
  }

  #route(method: string, parts: string[], query: URLSearchParams, body: Record<string, never>): unknown {
    const [room, id = "", part, which = "", act] = parts;
    const key = [method, room, id && "*", part, which && "*", act].filter(Boolean).join(" ");
    switch (key) {
      case "GET home":
        return {
          version: "1",
          epoch: this.epoch,
          newest: this.#n,
          notice: "",
          used_bytes: 0,
          quota_bytes: 0,
        };
      case "GET conversations":
        return this.#page(query.get("after"), Number(query.get("limit") ?? 50));
      case "POST conversations":
        return this.#create(body["id"] ?? "", body["title"] ?? "");
      case "GET conversations *":
        return this.#whole(id);
      case "PATCH conversations *": {
        const { title, pinned } = body as { title?: string; pinned?: boolean };
        const head = this.#head(id);
        this.conversations.set(id, { ...head, title: title ?? head.title, pinned: pinned ?? head.pinned });
        this.#changed("conversation", id);
        return this.#head(id);
      }
      case "DELETE conversations *":
        return this.#delete(id);
      case "POST conversations * messages":
        return this.#add(id, body as unknown as Message);
      case "POST conversations * messages * edit": {
        const old = this.#message(id, which);
        return this.#add(id, { ...old, id: body["id"] ?? "", content: body["content"] ?? "", run: null });
      }
      case "POST conversations * messages * choose": {
        this.#message(id, which);
        this.conversations.set(id, { ...this.#head(id), leaf: this.#newestBelow(id, which) });
        this.#changed("conversation", id);
        return this.#head(id);
      }
      case "DELETE conversations * messages *":
        return this.#deleteMessage(id, which);
      case "POST conversations * runs":
        return this.#start(id, body as never);
      case "GET runs":
        return { runs: [...this.runs.values()].map(({ run }) => run).filter(isActive) };
      case "POST runs * stop":
        this.finish(id, { state: "stopped" });
        return this.#run(id).run;
    }
    if (room === "changes" && id === "events") return this.#watchChanges(query);
    if (room === "runs" && part === "events") return this.#watchRun(id, Number(query.get("offset") ?? 0));
    throw new Refused(404, "not-found");
  }

  // --- conversations ---------------------------------------------------------------------------------------------

  #create(id: string, title: string): Conversation {
    if (!this.conversations.has(id)) {
      const at = this.#now();
      this.conversations.set(id, { id, title, pinned: false, created: at, updated: at, leaf: null });
      this.messages.set(id, []);
      this.#changed("conversation", id);
    }
    return this.#head(id);
  }

  #page(after: string | null, limit: number): unknown {
    const all = [...this.conversations.values()].reverse().sort((one, other) => other.updated - one.updated);
    if (after !== null) this.#head(after);
    const from = after === null ? 0 : all.findIndex(({ id }) => id === after) + 1;
    const found = all.slice(from, from + limit);
    return { conversations: found, after: from + limit < all.length ? found.at(-1)?.id : null };
  }

  #whole(id: string): unknown {
    const runs = [...this.runs.values()].filter(({ run }) => run.conversation === id);
    return {
      conversation: this.#head(id),
      messages: this.#of(id),
      runs: runs.map(({ run }) => run).reverse(),
    };
  }

  #delete(id: string): undefined {
    if (!this.conversations.has(id)) return;
    const running = [...this.runs.values()].some(({ run }) => run.conversation === id && isActive(run));
    if (running) throw new Refused(409, "conflict");
    this.conversations.delete(id);
    this.messages.delete(id);
    for (const [run, live] of this.runs) if (live.run.conversation === id) this.runs.delete(run);
    this.#changed("conversation", id, "", true);
  }

  #add(conversation: string, wanted: Message): Message {
    const head = this.#head(conversation);
    const known = [...this.messages.values()].flat().find(({ id }) => id === wanted.id);
    if (known !== undefined) {
      if (known.content !== wanted.content || !this.#of(conversation).includes(known))
        throw new Refused(409, "conflict");
      return known;
    }
    const parent = wanted.parent ?? null;
    if (parent !== null) this.#message(conversation, parent);
    const made: Message = {
      id: wanted.id,
      parent,
      role: wanted.role,
      content: wanted.content,
      thinking: "",
      tool_calls: [],
      model: wanted.model ?? "",
      created: this.#now(),
      attachments: (wanted.attachments ?? []).map((each) => ({ ...each, size: each.size ?? 1 })),
      run: wanted.run ?? null,
    };
    this.#setMessages(conversation, [...this.#of(conversation), made]);
    this.conversations.set(conversation, { ...head, leaf: made.id });
    this.#changed("message", made.id, conversation);
    this.#touch(conversation);
    return made;
  }

  #deleteMessage(conversation: string, id: string): undefined {
    const messages = this.#of(conversation);
    const gone = new Set([id]);
    for (const each of messages) if (each.parent !== null && gone.has(each.parent)) gone.add(each.id);
    const target = messages.find((each) => each.id === id);
    if (target === undefined) return;
    if ([...this.runs.values()].some(({ run }) => gone.has(run.message) && isActive(run)))
      throw new Refused(409, "conflict");
    this.#setMessages(
      conversation,
      messages.filter((each) => !gone.has(each.id)),
    );
    for (const [run, live] of this.runs) if (gone.has(live.run.message)) this.runs.delete(run);
    const head = this.#head(conversation);
    if (head.leaf !== null && gone.has(head.leaf)) {
      const top =
        target.parent ?? this.#of(conversation).findLast(({ parent }) => parent === null)?.id ?? null;
      const leaf = top === null ? null : this.#newestBelow(conversation, top);
      this.conversations.set(conversation, { ...head, leaf });
    }
    this.#changed("message", id, conversation, true);
    this.#touch(conversation);
  }

  // --- runs ------------------------------------------------------------------------------------------------------

  #start(conversation: string, { id, model, parent }: { id: string; model: string; parent: string }): Run {
    const known = this.runs.get(id);
    if (known !== undefined) return known.run;
    const message = `answer-of-${id}`;
    this.#add(conversation, {
      id: message,
      parent,
      role: "assistant",
      content: "",
      model,
      run: id,
    } as Message);
    const run: Run = {
      id,
      conversation,
      message,
      model,
      state: "queued",
      reason: "",
      detail: "",
      created: this.#now(),
      ended: null,
      size: 0,
      prompt_tokens: null,
      answer_tokens: null,
    };
    this.runs.set(id, { run, pieces: [], stored: 0 });
    this.#changed("run", id, conversation);
    return run;
  }

  #become(live: LiveRun, change: Partial<Run>): void {
    live.run = { ...live.run, ...change };
    this.#changed("run", live.run.id, live.run.conversation);
  }

  #watchRun(id: string, from: number): Stream {
    if (from > sizeOf(this.#run(id).pieces)) throw new Refused(409, "conflict");
    let offset = from;
    let told: string | null = null;
    return new Stream((): RunEvent[] | null => {
      const live = this.runs.get(id);
      if (live === undefined) return null;
      const events: RunEvent[] = [];
      if (told !== live.run.state && isActive(live.run)) {
        told = live.run.state;
        events.push({ state: live.run.state, text: null, run: null });
      }
      let at = 0;
      for (const { kind, text } of live.pieces) {
        const end = at + encoder.encode(text).length;
        if (end > offset) {
          const rest = new TextDecoder().decode(encoder.encode(text).slice(Math.max(0, offset - at)));
          events.push({
            state: live.run.state,
            text: { at: Math.max(at, offset), end, kind, text: rest },
            run: null,
          });
          offset = end;
        }
        at = end;
      }
      if (isActive(live.run)) return events;
      return [...events, { state: live.run.state, text: null, run: { ...live.run, size: at } }];
    });
  }

  // --- changes and streams ---------------------------------------------------------------------------------------

  #watchChanges(query: URLSearchParams): Stream {
    let since = Number(query.get("since"));
    if (query.get("epoch") !== this.epoch || since < this.floor || since > this.#n)
      throw new Refused(410, "reload");
    let first = true;
    return new Stream(() => {
      const changes = this.changes.filter(({ n }) => n > since);
      if (changes.length === 0 && !first) return [];
      first = false;
      since = changes.at(-1)?.n ?? since;
      return [{ epoch: this.epoch, changes, newest: this.#n }];
    });
  }

  #ring(): void {
    this.#streams.ring();
  }

  #changed(kind: string, id: string, conversation = "", gone = false): void {
    this.#n += 1;
    this.changes.push({ n: this.#n, at: this.#now(), kind, id, conversation, gone });
    queueMicrotask(() => this.#ring());
  }

  #touch(conversation: string): void {
    this.conversations.set(conversation, { ...this.#head(conversation), updated: this.#now() });
    this.#changed("conversation", conversation);
  }

  #now(): number {
    this.#clock += 1;
    return this.#clock;
  }

  #head(id: string): Conversation {
    const head = this.conversations.get(id);
    if (head === undefined) throw new Refused(404, "not-found");
    return head;
  }

  #of(conversation: string): readonly Message[] {
    this.#head(conversation);
    return this.messages.get(conversation) ?? [];
  }

  #setMessages(conversation: string, messages: readonly Message[]): void {
    this.messages.set(conversation, [...messages]);
  }

  #message(conversation: string, id: string): Message {
    const found = this.#of(conversation).find((message) => message.id === id);
    if (found === undefined) throw new Refused(404, "not-found");
    return found;
  }

  #run(id: string): LiveRun {
    const live = this.runs.get(id);
    if (live === undefined) throw new Refused(404, "not-found");
    return live;
  }

  #newestBelow(conversation: string, id: string): string {
    const next = this.#of(conversation).findLast(({ parent }) => parent === id);
    return next === undefined ? id : this.#newestBelow(conversation, next.id);
  }
}
