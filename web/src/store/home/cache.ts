/** What this browser keeps of a home's conversations, so that they open at once, and without the home. */
import { fields, oneOf, text } from "@/net/decode";
import { type Conversation, readConversation, readMessage, readRun } from "@/net/home/api";
import type { Segment } from "@/net/home/overlap";
import { flag, listOf, number } from "@/net/home/shapes";
import type { ChatShelf, Key } from "@/store/home/chat-shelf";
import type { Talk } from "@/store/home/tree";

const FORM = 1;
/** Conversations of which the messages are kept; those opened last. */
const MOST_TALKS = 100;

/** The list, and up to which change it is right. */
export interface SeenList {
  readonly epoch: string;
  readonly seen: number;
  readonly listed: boolean;
  readonly heads: readonly Conversation[];
}

interface StoredList extends SeenList {
  /** Conversations of which the messages are kept, the one opened last at the end. */
  readonly kept: readonly string[];
}

export class HomeCache {
  #kept: readonly string[] = [];

  /** @param prefix - whose, and of which home. */
  constructor(
    readonly shelf: ChatShelf,
    readonly prefix: Key,
  ) {}

  async list(): Promise<SeenList | null> {
    const stored = await this.#read(["list"], decodeList);
    this.#kept = stored?.kept ?? [];
    return stored;
  }

  async talk(conversation: string): Promise<Talk | null> {
    return await this.#read(["talk", conversation], decodeTalk);
  }

  async live(run: string): Promise<readonly Segment[] | null> {
    return await this.#read(["live", run], decodeSegments);
  }

  async saveList(list: SeenList): Promise<void> {
    const stored: StoredList = { ...list, kept: this.#kept };
    await this.#write([[["list"], { form: FORM, ...stored }]]);
  }

  async saveTalk(conversation: string, { messages, runs }: Talk): Promise<void> {
    const all = [...this.#kept.filter((id) => id !== conversation), conversation];
    const dropped = all.slice(0, -MOST_TALKS);
    this.#kept = all.slice(-MOST_TALKS);
    const record = { form: FORM, messages, runs: [...runs.values()] };
    await this.#write(
      [[["talk", conversation], record]],
      dropped.map((id) => ["talk", id]),
    );
  }

  async saveLive(run: string, segments: readonly Segment[]): Promise<void> {
    await this.#write([[["live", run], { form: FORM, segments }]]);
  }

  async forgetTalk(conversation: string): Promise<void> {
    this.#kept = this.#kept.filter((id) => id !== conversation);
    await this.#write([], [["talk", conversation]]);
  }

  async forgetLive(run: string): Promise<void> {
    await this.#write([], [["live", run]]);
  }

  /** Removes conversations that are not there any more, and answers that have ended. */
  async tidy(conversations: ReadonlySet<string>, runs: ReadonlySet<string>): Promise<void> {
    const depth = this.prefix.length;
    const passes = (key: Key) => {
      if (this.prefix.some((part, place) => key[place] !== part)) return true;
      const [what, id = ""] = key.slice(depth);
      return what === "talk" ? conversations.has(id) : what !== "live" || runs.has(id);
    };
    this.#kept = this.#kept.filter((id) => conversations.has(id));
    try {
      await this.shelf.keepOnly(passes);
    } catch {
      // Forbidden: then nothing is kept either.
    }
  }

  async #read<T>(key: Key, decode: (value: unknown) => T): Promise<T | null> {
    try {
      const stored = await this.shelf.get([...this.prefix, ...key]);
      return stored === undefined ? null : decode(stored);
    } catch {
      // Damaged, of another form, or the browser keeps nothing: the home has it all.
      return null;
    }
  }

  async #write(records: readonly (readonly [Key, unknown])[], removed: readonly Key[] = []): Promise<void> {
    const whole = (key: Key) => [...this.prefix, ...key];
    try {
      await this.shelf.put(
        records.map(([key, record]) => [whole(key), record] as const),
        removed.map(whole),
      );
    } catch {
      // Full or forbidden: the page works without, it only forgets on reload.
    }
  }
}

function formed(value: unknown): ReturnType<typeof fields> {
  const document = fields(value);
  if (document["form"] !== FORM) throw new TypeError("expected a record of this form");
  return document;
}

/** @throws Error - it is none. */
export function decodeList(value: unknown): StoredList {
  const document = formed(value);
  return {
    epoch: text(document["epoch"]),
    seen: number(document["seen"]),
    listed: flag(document["listed"]),
    heads: listOf(readConversation)(document["heads"]),
    kept: listOf(text)(document["kept"]),
  };
}

/** @throws Error - it is none. */
export function decodeTalk(value: unknown): Talk {
  const document = formed(value);
  const runs = listOf(readRun)(document["runs"]);
  return {
    messages: listOf(readMessage)(document["messages"]),
    runs: new Map(runs.map((run) => [run.id, run])),
  };
}

/** @throws Error - it is none. */
export function decodeSegments(value: unknown): readonly Segment[] {
  return listOf(decodeSegment)(formed(value)["segments"]);
}

function decodeSegment(value: unknown): Segment {
  const document = fields(value);
  const kind = oneOf(document["kind"], ["content", "thinking", "tool_call"]);
  return { kind, text: text(document["text"]) };
}
