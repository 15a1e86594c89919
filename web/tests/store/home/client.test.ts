import { afterEach, describe, expect, it, vi } from "vitest";
import type { HomeRequest } from "@/net/home/transport";
import { randomId } from "@/net/random-id";
import { HomeCache } from "@/store/home/cache";
import { HomeClient } from "@/store/home/client";
import type { Edit } from "@/store/home/edits";
import type { HomeView } from "@/store/home/model";
import { isActive, pathTo, runOf } from "@/store/home/tree";
import type { UnsentShelf } from "@/store/home/unsent";
import { MemoryShelf, seeded, testWorld, until } from "../../support/chat-world";
import { ModelHome } from "../../support/model-home";

vi.setConfig({ testTimeout: 60_000 });

const open: HomeClient[] = [];
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});

type Fault = (request: HomeRequest) => "none" | "before" | "after";

class MemoryUnsent implements UnsentShelf {
  edits: readonly Edit[] = [];
  load = () => this.edits;
  save = (edits: readonly Edit[]) => {
    this.edits = structuredClone(edits);
  };
}

function clientOf(
  home: ModelHome,
  shelf = new MemoryShelf(),
  fault?: Fault,
  pace?: () => Promise<void>,
  unsent = new MemoryUnsent(),
) {
  let view: HomeView | null = null;
  const cache = new HomeCache(shelf, ["u", "d"]);
  const onView = (seen: HomeView) => {
    view = seen;
  };
  const client = new HomeClient("b1", home.transport(fault, pace), cache, testWorld(), onView, unsent);
  open.push(client);
  void client.start();
  return { client, shelf, unsent, view: () => view ?? client.view };
}

type Side = ReturnType<typeof clientOf>;

const at = 1;

function begin(side: Side, conversation = randomId(), text = "Hello") {
  const [message, run] = [randomId(), randomId()];
  side.client.want(
    { kind: "create", conversation, title: text, at },
    { kind: "say", conversation, message, parent: null, content: text, attachments: [], at },
    { kind: "answer", conversation, parent: message, run, model: "m", message: null, at },
  );
  side.client.open(conversation);
  return { conversation, message, run };
}

/** What a side shows of a conversation: its active path. */
function shown(side: Side, conversation: string): string[] {
  const { shown } = side.view();
  const talk = shown.talks.get(conversation);
  if (talk === undefined) return [];
  return pathTo(talk, shown.heads.get(conversation)?.leaf ?? null).map((message) => {
    const run = runOf(talk, message);
    const text = run !== null && isActive(run) ? side.client.live(run.id)?.text : message.content;
    return `${message.role}: ${text}`;
  });
}

const settled = (side: Side) => side.view().pending.length === 0;

describe("a home's client", () => {
  it("shows at once what is wanted, and has the home do it once", async () => {
    const home = new ModelHome();
    home.away = true;
    const side = clientOf(home);
    const { conversation, run } = begin(side);
    await until("shown", () => shown(side, conversation).length === 2);
    home.away = false;
    await until("started", () => home.active().length === 1);
    home.say(run, "Hi ");
    home.say(run, "there");
    await until("streamed", () => shown(side, conversation)[1] === "assistant: Hi there");
    home.finish(run);
    await until("ended", () => side.view().shown.running.size === 0 && settled(side));
    expect(shown(side, conversation)).toEqual(["user: Hello", "assistant: Hi there"]);
    expect(side.view().figures.get(run)?.tokens).toBe(3);
    expect(home.messagesOf(conversation)).toHaveLength(2);
  });

  it("reads nothing whole of what it did itself", async () => {
    const home = new ModelHome();
    const side = clientOf(home);
    await until("live", () => side.view().contact === "live" && side.view().shown.listed);
    const { conversation, run } = begin(side);
    await until("started", () => home.active().length === 1);
    home.say(run, "Hi");
    await until("streamed", () => shown(side, conversation)[1] === "assistant: Hi");
    home.finish(run);
    await until("ended", () => side.view().shown.running.size === 0 && settled(side));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(home.asked.filter((what) => what === `GET /c2l/conversations/${conversation}`)).toEqual([]);
  });

  it.each(["before", "after"] as const)(
    "starts nothing twice when the connection breaks %s",
    async (when) => {
      const home = new ModelHome();
      const broken = new Set<string>();
      const side = clientOf(home, undefined, ({ method, path }) => {
        const key = `${method} ${path.split("?")[0]}`;
        if (method === "GET" || broken.has(key)) return "none";
        broken.add(key);
        return when;
      });
      const { conversation, run } = begin(side);
      await until("started", () => home.active().length === 1);
      home.finish(run);
      await until("settled", () => settled(side) && side.view().shown.running.size === 0);
      expect(broken.size).toBe(3);
      expect(home.conversations.size).toBe(1);
      expect(home.messagesOf(conversation)).toHaveLength(2);
      expect(home.runs.size).toBe(1);
    },
  );

  it("reads an answer that had ended before the home's word of its beginning came", async () => {
    const home = new ModelHome();
    let began = 0;
    let run = "";
    let mayRead = true;
    const side = clientOf(home, undefined, ({ method, path }) => {
      if (method === "GET")
        return mayRead || !/^\/c2l\/(conversations\/|runs)/.test(path) ? "none" : "before";
      if (!path.endsWith("/runs")) return "none";
      began += 1;
      if (began === 1) return "after";
      // Asked for once more, it has ended; nobody here has seen a word of it.
      home.say(run, "Said and done");
      home.finish(run);
      setTimeout(() => {
        mayRead = true;
      }, 20);
      return "none";
    });
    await until("live", () => side.view().contact === "live" && side.view().shown.listed);
    mayRead = false;
    const begun = begin(side);
    run = begun.run;
    await until("settled", () => began === 2 && settled(side) && side.view().shown.running.size === 0);
    expect(home.runs.size).toBe(1);
    await until("read", () => shown(side, begun.conversation)[1] === "assistant: Said and done");
    expect(side.view().shown.talks.get(begun.conversation)?.runs.get(run)?.state).toBe("done");
    expect(side.client.live(run)).toBeNull();
  });

  it("sends what was not sent before a reload, once, whether or not the home had it", async () => {
    for (const lost of ["before", "after"] as const) {
      const home = new ModelHome();
      const cut: Fault = ({ method }) => (method === "POST" ? lost : "none");
      const first = clientOf(home, undefined, cut);
      const { conversation, message, run } = begin(first);
      await until("kept", () => first.unsent.edits.length === 3);
      await until("tried", () => lost === "before" || home.conversations.size === 1);
      first.client.close();
      const second = clientOf(home, first.shelf, undefined, undefined, first.unsent);
      second.client.open(conversation);
      await until("shown", () => shown(second, conversation)[0] === "user: Hello");
      await until("started", () => home.active().length === 1);
      home.finish(run);
      await until("settled", () => settled(second) && second.view().shown.running.size === 0);
      expect(home.messagesOf(conversation).map(({ id }) => id)[0]).toBe(message);
      expect(home.messagesOf(conversation)).toHaveLength(2);
      expect([home.conversations.size, home.runs.size]).toEqual([1, 1]);
      await until("kept no more", () => second.unsent.edits.length === 0);
    }
  });

  it("keeps the messages of the conversations in memory that were opened last, and reads the others again", async () => {
    const home = new ModelHome();
    const side = clientOf(home);
    const made: string[] = [];
    for (let count = 0; count < 30; count += 1) {
      const { conversation, run } = begin(side);
      made.push(conversation);
      await until("started", () => home.runs.has(run));
      home.say(run, `answer ${count}`);
      home.finish(run);
      await until("ended", () => settled(side) && side.view().shown.running.size === 0);
    }
    expect(side.view().shown.heads.size).toBe(30);
    expect(side.view().shown.talks.size).toBeLessThanOrEqual(21);
    const [oldest] = made as [string];
    expect(side.view().shown.talks.has(oldest)).toBe(false);
    side.client.open(oldest);
    await until("read again", () => shown(side, oldest)[1] === "assistant: answer 0");
  });

  it("says so when a conversation cannot be read though the home is there", async () => {
    const home = new ModelHome();
    const one = clientOf(home);
    const { conversation, run } = begin(one);
    await until("started", () => home.active().length === 1);
    home.finish(run);
    let spoilt = true;
    const other = clientOf(home, undefined, ({ method, path }) =>
      spoilt && method === "GET" && path === `/c2l/conversations/${conversation}` ? "before" : "none",
    );
    await until("listed", () => other.view().shown.heads.has(conversation));
    other.client.open(conversation);
    await until("told", () => other.view().stuck !== null && other.view().contact === "live");
    spoilt = false;
    await until("read", () => shown(other, conversation).length === 2 && other.view().stuck === null);
  });

  it("lets another client see it all", async () => {
    const home = new ModelHome();
    const [one, other] = [clientOf(home), clientOf(home)];
    const { conversation, run } = begin(one);
    await until("listed", () => other.view().shown.heads.has(conversation));
    other.client.open(conversation);
    await until("read", () => shown(other, conversation).length === 2);
    home.say(run, "Hi");
    await until("streamed", () => shown(other, conversation)[1] === "assistant: Hi");
    other.client.want({ kind: "stop", conversation, run, at });
    await until(
      "stopped",
      () => one.view().shown.talks.get(conversation)?.runs.get(run)?.state === "stopped",
    );
    other.client.want({ kind: "rename", conversation, title: "Other", at });
    await until("renamed", () => one.view().shown.heads.get(conversation)?.title === "Other");
    other.client.want({ kind: "delete", conversation, at });
    await until("deleted", () => !one.view().shown.heads.has(conversation));
  });

  it("takes back what the home refuses, with what hangs on it, and says why", async () => {
    const home = new ModelHome();
    home.refusals.set("messages", { status: 507, slug: "home-full" });
    const side = clientOf(home);
    const { conversation } = begin(side);
    await until("refused", () => side.view().refusals.length === 1);
    const [refusal] = side.view().refusals;
    expect(refusal?.problem.slug).toBe("home-full");
    expect(refusal?.edits.map(({ kind }) => kind)).toEqual(["say", "answer"]);
    await until("settled", () => settled(side));
    expect(shown(side, conversation)).toEqual([]);
    expect(home.active()).toEqual([]);
    side.client.forgive(refusal?.id ?? 0);
    await until("forgiven", () => side.view().refusals.length === 0);
  });

  it("tries again when the home has too much to do", async () => {
    const home = new ModelHome();
    home.refusals.set("runs", { status: 503, slug: "overloaded" });
    const side = clientOf(home);
    begin(side);
    await until("started", () => home.active().length === 1);
    expect(side.view().refusals).toEqual([]);
  });

  it("takes an answer up where it broke off", async () => {
    const home = new ModelHome();
    const side = clientOf(home);
    const { conversation, run } = begin(side);
    await until("started", () => home.active().length === 1);
    home.say(run, "Grüße ");
    await until("streamed", () => shown(side, conversation)[1] === "assistant: Grüße ");
    home.away = true;
    home.breakStreams();
    home.say(run, "🦙");
    await until("reattaching", () => side.view().phases.get(run) === "reattaching");
    home.away = false;
    await until("streamed on", () => shown(side, conversation)[1] === "assistant: Grüße 🦙");
    home.finish(run);
    await until("ended", () => side.view().shown.running.size === 0);
    expect(shown(side, conversation)[1]).toBe("assistant: Grüße 🦙");
  });

  it.each(["the same", "something else", "less"])(
    "shows what is true when a killed home says %s",
    async (what) => {
      const home = new ModelHome();
      const side = clientOf(home);
      const { conversation, run } = begin(side);
      await until("started", () => home.active().length === 1);
      home.say(run, "written ");
      home.store();
      home.say(run, "lost ");
      await until("streamed", () => shown(side, conversation)[1] === "assistant: written lost ");
      home.kill();
      if (what === "the same") home.say(run, "lost and more");
      else if (what === "something else") home.say(run, "found and more");
      home.finish(run, what === "less" ? { state: "interrupted", reason: "interrupted" } : { state: "done" });
      const truth = {
        "the same": "written lost and more",
        "something else": "written found and more",
        less: "written ",
      };
      await until("ended", () => side.view().shown.running.size === 0);
      expect(shown(side, conversation)[1]).toBe(`assistant: ${truth[what as keyof typeof truth]}`);
    },
  );

  it("opens without the home what it has seen, and takes up what goes on", async () => {
    const home = new ModelHome();
    const first = clientOf(home);
    const { conversation, run } = begin(first);
    await until("started", () => home.active().length === 1 && settled(first));
    home.say(run, "half of it");
    home.store();
    await until("streamed", () => shown(first, conversation)[1] === "assistant: half of it");
    await until("kept", () => first.shelf.records.has(JSON.stringify(["u", "d", "live", run])), 3_000);
    first.client.close();
    home.away = true;
    const second = clientOf(home, first.shelf);
    second.client.open(conversation);
    await until("shown", () => shown(second, conversation).length === 2);
    await until("with its text", () => shown(second, conversation)[1] === "assistant: half of it");
    await until("lost", () => second.view().contact === "lost");
    home.asked.length = 0;
    home.away = false;
    home.say(run, ", and the rest");
    await until(
      "streamed on",
      () => shown(second, conversation)[1] === "assistant: half of it, and the rest",
    );
    home.finish(run);
    await until("ended", () => second.view().shown.running.size === 0);
    expect(second.view().contact).toBe("live");
  });

  it("reads everything again when the changes are forgotten, or of another store", async () => {
    const home = new ModelHome();
    const [one, other] = [clientOf(home), clientOf(home)];
    const { conversation, run } = begin(one);
    await until("started", () => home.active().length === 1);
    home.finish(run);
    await until("listed", () => other.view().shown.heads.has(conversation) && settled(one));
    other.client.open(conversation);
    await until("read", () => shown(other, conversation).length === 2);
    home.epoch = "epoch-2";
    home.conversations.delete(conversation);
    home.messages.delete(conversation);
    home.runs.clear();
    home.forget();
    await until("gone", () => !other.view().shown.heads.has(conversation));
    expect(shown(other, conversation)).toEqual([]);
  });

  it("finds spoilt records no obstacle", async () => {
    const home = new ModelHome();
    const shelf = new MemoryShelf();
    await shelf.put([[["u", "d", "list"], { form: 1, epoch: 3, heads: [{}] }]]);
    const side = clientOf(home, shelf);
    const { conversation } = begin(side);
    await until("started", () => home.active().length === 1);
    expect(side.view().shown.heads.get(conversation)?.title).toBe("Hello");
  });
});

describe("two clients of one home", () => {
  it.each([1, 2, 3, 4, 5, 6])(
    "stay equal through what may happen (%i)",
    { timeout: 30_000 },
    async (seed) => {
      const random = seeded(seed);
      const pick = <T>(items: readonly T[]): T | undefined => items[Math.floor(random() * items.length)];
      const home = new ModelHome();
      const fault: Fault = () => {
        const chance = random();
        return chance < 0.05 ? "before" : chance < 0.1 ? "after" : "none";
      };
      // Answers and streams overtake each other.
      const pace = () =>
        new Promise<void>((resolve) => setTimeout(resolve, random() < 0.5 ? 0 : random() * 15));
      const sides = [1, 2].map(() => clientOf(home, new MemoryShelf(), fault, pace));
      const conversation = randomId();
      begin(sides[0] as Side, conversation);
      await until("there", () => sides.every((side) => side.view().shown.heads.has(conversation)));
      for (const side of sides) side.client.open(conversation);
      for (let step = 0; step < 200; step += 1) {
        const side = pick(sides) as Side;
        act(home, side, conversation, random, pick);
        if (random() < 0.5) await new Promise((resolve) => setTimeout(resolve, random() * 6));
      }
      home.away = false;
      await until("settled", () => {
        for (const run of home.active()) home.finish(run);
        return sides.every((side) => settled(side) && side.view().shown.running.size === 0);
      });
      const truth = {
        messages: home.messagesOf(conversation).map(essence),
        ...home.conversations.get(conversation),
      };
      for (const side of sides) {
        const seen = () => {
          const { heads, talks } = side.view().shown;
          return { messages: talks.get(conversation)?.messages.map(essence), ...heads.get(conversation) };
        };
        await until("equal", () => JSON.stringify(seen()) === JSON.stringify(truth)).catch(() => {});
        expect(seen()).toEqual(truth);
      }
    },
  );
});

function essence({
  id,
  parent,
  role,
  content,
}: {
  id: string;
  parent: string | null;
  role: string;
  content: string;
}) {
  return { id, parent, role, content };
}

function act(
  home: ModelHome,
  side: Side,
  conversation: string,
  random: () => number,
  pick: <T>(items: readonly T[]) => T | undefined,
): void {
  const { shown } = side.view();
  const talk = shown.talks.get(conversation);
  const messages = talk?.messages.filter(({ id }) => !id.startsWith("run:")) ?? [];
  const mine = messages.filter(({ role }) => role === "user");
  const base = { conversation, at };
  const leaf = shown.heads.get(conversation)?.leaf ?? null;
  const edits: (() => Edit[])[] = [
    () => [
      {
        ...base,
        kind: "say",
        message: randomId(),
        parent: leaf?.startsWith("run:") ? null : leaf,
        content: `said ${random()}`,
        attachments: [],
      },
    ],
    () => {
      const message = pick(mine);
      if (message === undefined) return [];
      const id = randomId();
      return [
        { ...base, kind: "rewrite", message: message.id, id, content: `rewritten ${random()}` },
        { ...base, kind: "answer", parent: id, run: randomId(), model: "m", message: null },
      ];
    },
    () => {
      const message = pick(mine);
      if (message === undefined) return [];
      return [{ ...base, kind: "answer", parent: message.id, run: randomId(), model: "m", message: null }];
    },
    () => {
      const message = pick(messages);
      return message === undefined ? [] : [{ ...base, kind: "choose", message: message.id }];
    },
    () => [{ ...base, kind: "rename", title: `title ${random()}` }],
    () => [{ ...base, kind: "pin", pinned: random() < 0.5 }],
    () => {
      const run = pick(home.active());
      return run === undefined ? [] : [{ ...base, kind: "stop", run }];
    },
  ];
  const world: (() => void)[] = [
    () => {
      for (const run of home.active())
        home.say(run, `${random()}äö🦙 `, random() < 0.2 ? "thinking" : "content");
    },
    () => {
      const run = pick(home.active());
      if (run !== undefined) home.finish(run, random() < 0.5 ? { state: "done" } : { state: "failed" });
    },
    () => home.store(),
    () => home.breakStreams(),
    () => {
      home.away = !home.away;
      if (home.away) home.breakStreams();
    },
    () => home.kill(),
    () => home.deleteMessage(conversation, pick(messages)?.id ?? ""),
  ];
  if (random() < 0.6) side.client.want(...(pick(edits)?.() ?? []));
  else pick(world)?.();
}
