import { describe, expect, it } from "vitest";
import type { Change, Conversation, Message, Run } from "@/net/home/api";
import { digest, NONE_WANTED, wholesOf } from "@/store/home/changes";
import { afterRefusal, type Edit, type Pending, withEdit, withEdits } from "@/store/home/edits";
import {
  type Known,
  learnEnd,
  learnMessage,
  learnRun,
  NOTHING,
  overdueRuns,
  withList,
  withNew,
  withRunning,
  withWhole,
} from "@/store/home/known";
import { newestBelow, pathTo, siblingsOf, type Talk } from "@/store/home/tree";

const C = "conversation";
const head: Conversation = { id: C, title: "t", pinned: false, created: 1, updated: 1, leaf: null };

function message(id: string, parent: string | null, more: Partial<Message> = {}): Message {
  const base = { thinking: "", tool_calls: [], model: "", created: 1, attachments: [], run: null };
  return { id, parent, role: "user", content: id, ...base, ...more };
}

function run(id: string, of: string, state: Run["state"] = "queued"): Run {
  const none = { reason: "", detail: "", ended: null, prompt_tokens: null, answer_tokens: null };
  return { id, conversation: C, message: of, model: "m", state, created: 1, size: 0, ...none };
}

function knownWith(messages: readonly Message[], leaf: string | null, runs: readonly Run[] = []): Known {
  return withWhole(NOTHING, { conversation: { ...head, leaf }, messages, runs });
}

const talkOf = (known: Known) => known.talks.get(C) as Talk;
const shownPath = (known: Known) =>
  pathTo(talkOf(known), known.heads.get(C)?.leaf ?? null).map(({ id }) => id);

const TREE = [
  message("a", null),
  message("b", "a"),
  message("c", "b"),
  message("b2", "a"),
  message("d", "b2"),
];

describe("a talk", () => {
  it("has one active path, and versions beside it", () => {
    const known = knownWith(TREE, "d");
    expect(shownPath(known)).toEqual(["a", "b2", "d"]);
    expect(siblingsOf(talkOf(known), TREE[1] as Message).map(({ id }) => id)).toEqual(["b", "b2"]);
    expect(newestBelow(talkOf(known), "b")).toBe("c");
    expect(newestBelow(talkOf(known), "a")).toBe("d");
    expect(pathTo(talkOf(known), "nowhere")).toEqual([]);
  });

  it("does not go round in circles", () => {
    const known = knownWith([message("a", "b"), message("b", "a")], "a");
    expect(shownPath(known)).toEqual([]);
    expect(newestBelow(talkOf(known), "a")).toEqual(expect.any(String));
  });
});

describe("what is known", () => {
  it("gives a run a place only once its message has one", () => {
    // The home tells which runs go on before the answer to the one who asked for it has come.
    const early = withRunning(knownWith([message("q", null)], "q"), [run("r", "a")]);
    expect(talkOf(early).runs.size).toBe(0);
    expect(early.running.get("r")).toBe(C);
    const late = learnRun(
      learnMessage(early, C, message("a", "q", { run: "r", content: "" })),
      run("r", "a"),
    );
    const written = { content: "text", thinking: "", tool_calls: [] };
    const ended = learnEnd(late, { ...run("r", "a", "done"), size: 4 }, written);
    expect(talkOf(ended).messages.at(-1)?.content).toBe("text");
    expect(ended.running.size).toBe(0);
  });

  it("does not let a run that has ended begin again", () => {
    const known = knownWith([message("a", null, { run: "r" })], "a", [run("r", "a", "done")]);
    expect(talkOf(withRunning(known, [run("r", "a", "streaming")])).runs.get("r")?.state).toBe("done");
  });

  it("tells of runs that ended while nobody looked", () => {
    const known = knownWith([message("a", null, { run: "r" })], "a", [run("r", "a", "streaming")]);
    expect(overdueRuns(known, C)).toEqual([]);
    expect(overdueRuns(withRunning(known, []), C).map(({ id }) => id)).toEqual(["r"]);
  });

  it("forgets what is not in the list any more", () => {
    const known = withList(knownWith(TREE, "d"), []);
    expect(known.heads.size + known.talks.size).toBe(0);
  });
});

describe("edits", () => {
  const at = 2;
  const say: Edit = {
    kind: "say",
    conversation: C,
    message: "m",
    parent: "d",
    content: "x",
    attachments: [],
    at,
  };
  const answer: Edit = {
    kind: "answer",
    conversation: C,
    parent: "m",
    run: "r",
    model: "m",
    message: null,
    at,
  };

  it.each<[string, Edit, readonly string[]]>([
    ["say", say, ["a", "b2", "d", "m"]],
    ["rewrite", { kind: "rewrite", conversation: C, message: "b", id: "b3", content: "x", at }, ["a", "b3"]],
    ["choose", { kind: "choose", conversation: C, message: "b", at }, ["a", "b", "c"]],
    ["answer", { ...answer, parent: "d" }, ["a", "b2", "d", "run:r"]],
  ])("lay %s over what is known", (_, edit, path) => {
    const shown = withEdit(knownWith(TREE, "d"), edit);
    expect(shownPath(shown)).toEqual(path);
    // What the home has done meanwhile is not done twice.
    expect(shownPath(withEdit(shown, edit))).toEqual(path);
    expect(talkOf(withEdit(shown, edit)).messages).toHaveLength(talkOf(shown).messages.length);
  });

  it("begin a conversation with all that follows", () => {
    const create: Edit = { kind: "create", conversation: C, title: "t", at };
    const pending = [create, { ...say, parent: null }, answer].map((edit) => ({ edit, taken: null }));
    const shown = withEdits(NOTHING, pending);
    expect(shownPath(shown)).toEqual(["m", "run:r"]);
    expect(shown.running.get("r")).toBe(C);
    expect(withEdits(withNew(NOTHING, head), pending).heads.size).toBe(1);
  });

  it("change nothing that is not there", () => {
    const edits: Edit[] = [
      say,
      answer,
      { kind: "rename", conversation: C, title: "x", at },
      { kind: "choose", conversation: C, message: "m", at },
      { kind: "delete", conversation: C, at },
    ];
    for (const edit of edits) expect(withEdit(NOTHING, edit)).toEqual(NOTHING);
  });

  it("fall with the one that they hang on, and no others", () => {
    const stop: Edit = { kind: "stop", conversation: C, run: "r", at };
    const rename: Edit = { kind: "rename", conversation: C, title: "x", at };
    const other: Edit = { ...say, message: "n" };
    const pending: Pending[] = [say, rename, answer, other, stop].map((edit) => ({ edit, taken: null }));
    const { kept, dropped } = afterRefusal(pending, say);
    expect(dropped).toEqual([say, answer, stop]);
    expect(kept.map(({ edit }) => edit)).toEqual([rename, other]);
  });
});

describe("changes", () => {
  let n = 0;
  const change = (kind: string, id: string, more: Partial<Change> = {}): Change => {
    n += 1;
    return { n, at: 1, kind, id, conversation: kind === "conversation" ? "" : C, gone: false, ...more };
  };

  it("have read what is not known, and nothing else", () => {
    const known = knownWith(TREE, "d");
    const { wanted } = digest(known, [change("message", "d"), change("message", "new"), change("run", "r")]);
    expect(wanted.running).toBe(true);
    expect(wholesOf(known, wanted)).toEqual(new Set([C]));
    // By the time of reading, it may be known: it was our own.
    expect(wholesOf(learnMessage(known, C, message("new", "d")), wanted)).toEqual(new Set());
  });

  it("have read again what a message was deleted from", () => {
    const known = knownWith(TREE, "d");
    expect(digest(known, [change("message", "b", { gone: true })]).wanted.wholes).toEqual(new Set([C]));
    expect(digest(known, [change("message", "unknown", { gone: true })]).wanted.wholes).toEqual(new Set());
  });

  it("tell what is gone, unless it is there again", () => {
    const gone = change("conversation", C, { gone: true });
    expect(digest(NOTHING, [change("conversation", C), gone])).toEqual({
      wanted: NONE_WANTED,
      gone: new Set([C]),
    });
    const { gone: none, wanted } = digest(NOTHING, [gone, change("conversation", C)]);
    expect(none).toEqual(new Set());
    expect(wanted.heads).toEqual(new Set([C]));
  });

  it("of devices, keys and settings are no matter of conversations", () => {
    expect(digest(NOTHING, [change("device", "d"), change("key", "k")]).wanted).toEqual(NONE_WANTED);
  });
});
