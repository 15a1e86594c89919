/** The conversations of all homes: which there are, which one is open, and what somebody does with them. */
import { create } from "zustand";
import type { Attached, Conversation, Message, Run } from "@/net/home/api";
import { mayKeep } from "@/net/home/served";
import { browserWorld } from "@/net/home/world";
import { randomId } from "@/net/random-id";
import { openDrafts } from "@/store/drafts";
import { HomeCache } from "@/store/home/cache";
import { BrowserChatShelf, type ChatShelf, type Key, PassingChatShelf } from "@/store/home/chat-shelf";
import { HomeClient } from "@/store/home/client";
import type { Edit } from "@/store/home/edits";
import type { ChatWorld } from "@/store/home/feed";
import type { HomeView } from "@/store/home/model";
import { isActive, pathTo, runOf, type Talk } from "@/store/home/tree";
import { forgetUnsentBut, NO_SHELF, tabShelf } from "@/store/home/unsent";
import { type Home, useHomes, userKey } from "@/store/homes";
import type { LiveAnswer, Phase } from "@/store/live-answer";
import { followPlace, openPlace, type Place, useOpened } from "@/store/place";
import { useWay } from "@/store/way";

export type { Phase } from "@/store/live-answer";

interface Chats {
  /** By bridge id. */
  readonly views: ReadonlyMap<string, HomeView>;
}

export const useChats = create<Chats>(() => ({ views: new Map() }));

/** The conversation that is open, as far as it is known. */
export interface Opened {
  readonly place: Place;
  readonly view: HomeView;
  /** `null` if there is none of that id. */
  readonly head: Conversation | null;
  /** `null` if it was not read yet. */
  readonly talk: Talk | null;
}

const shelf: ChatShelf = mayKeep() ? new BrowserChatShelf() : new PassingChatShelf();
/** By what names a home for this browser. */
const clients = new Map<string, HomeClient>();
/** Answers that this page asked for: by the id of its run, the home. */
const byBridge = new Map<string, HomeClient>();

const world: ChatWorld = {
  ...browserWorld,
  onWake: (listener) => {
    const leave = browserWorld.onWake(listener);
    // The server tells at once that a machine is back.
    const leaveWay = useWay.subscribe(({ status }, { status: before }) => {
      const connected = (of: typeof status) => of?.bridges.filter((bridge) => bridge.connected).length ?? 0;
      if (connected(status) > connected(before)) listener();
    });
    return () => {
      leave();
      leaveWay();
    };
  },
  isVisible: () => document.visibilityState === "visible",
  onVisibility: (listener) => {
    document.addEventListener("visibilitychange", listener);
    return () => document.removeEventListener("visibilitychange", listener);
  },
};

/** Follows the conversations of a user's homes until the returned function is called. */
export function followChats(user: string | null): () => void {
  const leavePlace = followPlace();
  openDrafts(user);
  forgetUnsentBut(userKey(user));
  follow(user);
  const leaveHomes = useHomes.subscribe(() => follow(user));
  const leaveOpened = useOpened.subscribe(openInClients);
  window.addEventListener("beforeunload", askBeforeLeaving);
  return () => {
    window.removeEventListener("beforeunload", askBeforeLeaving);
    leavePlace();
    leaveHomes();
    leaveOpened();
    for (const client of clients.values()) client.close();
    clients.clear();
    byBridge.clear();
    useChats.setState({ views: new Map() });
  };
}

function follow(user: string | null): void {
  const { ready, homes } = useHomes.getState();
  if (!ready) return;
  const mine = homes.filter(({ trouble }) => trouble !== "removed");
  const keys = new Set(mine.map(keyOf));
  for (const [key, client] of clients) {
    if (keys.has(key)) continue;
    client.close();
    clients.delete(key);
    byBridge.delete(client.view.bridgeId);
  }
  // What another person saw here, or this one of a home that has removed this browser, is nobody's any more.
  void shelf.keepOnly(([who, home]) => who === userKey(user) && keys.has(home ?? "")).catch(() => {});
  for (const home of mine) if (!clients.has(keyOf(home))) begin(user, home);
  const known = new Set(mine.map(({ bridgeId }) => bridgeId));
  const views = new Map([...useChats.getState().views].filter(([id]) => known.has(id)));
  for (const id of known) {
    const client = byBridge.get(id);
    if (client !== undefined && !views.has(id)) views.set(id, client.view);
  }
  useChats.setState({ views });
  openInClients();
}

/** A reload sends what was not sent yet, but a tab that is closed takes it along. */
function askBeforeLeaving(event: BeforeUnloadEvent): void {
  const isUnsent = ({ pending }: HomeView) =>
    pending.some(({ edit, taken }) => taken === null && (edit.kind === "say" || edit.kind === "rewrite"));
  if ([...useChats.getState().views.values()].some(isUnsent)) event.preventDefault();
}

function keyOf({ bridgeId, deviceId }: Home): string {
  return deviceId ?? bridgeId;
}

function begin(user: string | null, home: Home): void {
  const { bridgeId, transport } = home;
  const prefix: Key = [userKey(user), keyOf(home)];
  const cache = new HomeCache(shelf, prefix);
  const onView = (view: HomeView) => {
    if (clients.get(keyOf(home)) !== client) return;
    useChats.setState(({ views }) => ({ views: new Map(views).set(bridgeId, view) }));
  };
  const unsent = mayKeep() ? tabShelf(userKey(user), bridgeId) : NO_SHELF;
  const client = new HomeClient(bridgeId, transport, cache, world, onView, unsent);
  clients.set(keyOf(home), client);
  byBridge.set(bridgeId, client);
  void client.start();
}

function openInClients(): void {
  const { place } = useOpened.getState();
  for (const [id, client] of byBridge) client.open(place?.bridgeId === id ? place.conversation : null);
}

/** Removes everything that this browser keeps of conversations. */
export async function forgetChats(): Promise<void> {
  for (const client of clients.values()) client.close();
  clients.clear();
  byBridge.clear();
  useChats.setState({ views: new Map() });
  useOpened.setState({ place: null });
  forgetUnsentBut(null);
  await shelf.keepOnly(() => false).catch(() => {});
}

// --- what is open -------------------------------------------------------------------------------------------------

/** Pure. */
export function openedIn({ views }: Chats, place: Place | null): Opened | null {
  const view = place === null ? undefined : views.get(place.bridgeId);
  if (place === null || view === undefined) return null;
  const { shown } = view;
  return {
    place,
    view,
    head: shown.heads.get(place.conversation) ?? null,
    talk: shown.talks.get(place.conversation) ?? null,
  };
}

export function opened(): Opened | null {
  return openedIn(useChats.getState(), useOpened.getState().place);
}

/** The messages of the active path. */
export function pathOf({ talk, head }: Opened): readonly Message[] {
  return talk === null ? [] : pathTo(talk, head?.leaf ?? null);
}

/** The run at the end of the active path, while it goes on. */
export function activeRun(at: Opened | null): Run | null {
  if (at === null || at.talk === null) return null;
  const last = pathOf(at).at(-1);
  const run = last === undefined ? null : runOf(at.talk, last);
  return run !== null && isActive(run) ? run : null;
}

/** What the answer at the end of the active path is at; `null` if none is being written. */
export function phaseOf(at: Opened | null): Phase | null {
  const run = activeRun(at);
  // What was not sent yet is at nothing: no machine has the question.
  if (run === null || at === null || isSending(at, run)) return null;
  return at.view.phases.get(run.id) ?? "waiting";
}

/** Calls a selector with what is open; what it returns should be equal while nothing changes. */
export function useOpen<T>(select: (at: Opened | null) => T): T {
  const place = useOpened((state) => state.place);
  return useChats((state) => select(openedIn(state, place)));
}

/** The answer of a run, to be written to the page; `null` if it does not arrive (any more). */
export function liveAnswer(bridgeId: string, run: string): LiveAnswer | null {
  return byBridge.get(bridgeId)?.live(run) ?? null;
}

// --- what somebody does -------------------------------------------------------------------------------------------

const now = () => Date.now() / 1000;

function want(bridgeId: string, ...edits: readonly Edit[]): void {
  byBridge.get(bridgeId)?.want(...edits);
}

/** What answers: a model of a home. */
export interface Choice {
  readonly bridgeId: string;
  readonly model: string;
}

/** Whether a message can be added to what is open: its end has to be known, and nothing be written there. */
export function mayAdd(at: Opened | null): boolean {
  if (at === null) return true;
  return at.head !== null && at.talk !== null && activeRun(at) === null;
}

/**
 * Adds a message to a conversation, or begins one with it, and asks for an answer.
 *
 * @param to - where it was written; `null` for a conversation that is to be begun.
 * @returns whether it was added: not while an answer is being written there.
 */
export function send(
  content: string,
  attachments: readonly Attached[],
  choice: Choice,
  to: Place | null,
): boolean {
  const at = openedIn(useChats.getState(), to);
  if ((to !== null && at === null) || !mayAdd(at)) return false;
  const place = to ?? { bridgeId: choice.bridgeId, conversation: randomId() };
  const base = { conversation: place.conversation, at: now() };
  const message = randomId();
  const parent = at === null ? null : (pathOf(at).at(-1)?.id ?? null);
  const begun: Edit[] =
    at === null ? [{ ...base, kind: "create", title: titleFor(content, attachments) }] : [];
  const { model } = choice;
  want(
    place.bridgeId,
    ...begun,
    { ...base, kind: "say", message, parent, content, attachments },
    { ...base, kind: "answer", parent: message, run: randomId(), model, message: null },
  );
  // Whoever has gone elsewhere meanwhile stays there.
  if (to === null && useOpened.getState().place === null) openPlace(place);
  return true;
}

/** Characters of a title that is made of a message. */
const MOST_TITLE = 80;

/** Pure. */
export function titleFor(content: string, attachments: readonly Pick<Attached, "name">[]): string {
  const line = content.trim().split(/\s*\n/)[0] ?? "";
  const words = line === "" ? (attachments[0]?.name ?? "") : line;
  const characters = [...words];
  if (characters.length <= MOST_TITLE) return words;
  const cut = characters.slice(0, MOST_TITLE).join("");
  return `${cut.replace(/\s+\S*$/, "")}…`;
}

/** Writes a message anew, beside it, and asks for an answer to that; returns false while one is being written. */
export function rewrite(message: Message, content: string, model: string): boolean {
  const at = opened();
  if (at === null || activeRun(at) !== null) return false;
  const { bridgeId, conversation } = at.place;
  const base = { conversation, at: now() };
  const id = randomId();
  want(
    bridgeId,
    { ...base, kind: "rewrite", message: message.id, id, content },
    { ...base, kind: "answer", parent: id, run: randomId(), model, message: null },
  );
  return true;
}

/** Asks for another answer to the same, beside the one there is. */
export function regenerate(answer: Message, model: string): void {
  const at = opened();
  if (at === null || answer.parent === null || activeRun(at) !== null) return;
  answerTo(at.place, answer.parent, model);
}

/** Asks for the answer to a message that has none. */
export function answerTo({ bridgeId, conversation }: Place, parent: string, model: string): void {
  want(bridgeId, {
    conversation,
    at: now(),
    kind: "answer",
    parent,
    run: randomId(),
    model,
    message: null,
  });
}

/** Has the active path lead through a message. */
export function choose(message: Message): void {
  const at = opened();
  if (at === null) return;
  const { bridgeId, conversation } = at.place;
  want(bridgeId, { conversation, at: now(), kind: "choose", message: message.id });
}

/** Stops the answer that is being written in what is open. */
export function stop(): void {
  const at = opened();
  const run = activeRun(at);
  if (at === null || run === null || isStopping(at, run)) return;
  const { bridgeId, conversation } = at.place;
  want(bridgeId, { conversation, at: now(), kind: "stop", run: run.id });
}

/** Whether a stop is on its way to the home. */
export function isStopping({ view }: Opened, { id }: Run): boolean {
  return view.pending.some(({ edit }) => edit.kind === "stop" && edit.run === id);
}

/** Whether an answer has yet to be asked for at the home. */
export function isSending({ view }: Opened, { id }: Run): boolean {
  return view.pending.some(({ edit, taken }) => taken === null && edit.kind === "answer" && edit.run === id);
}

export function rename({ bridgeId, conversation }: Place, title: string): void {
  want(bridgeId, { conversation, at: now(), kind: "rename", title });
}

export function pin({ bridgeId, conversation }: Place, pinned: boolean): void {
  want(bridgeId, { conversation, at: now(), kind: "pin", pinned });
}

/** Deletes a conversation for good; an answer that is being written in it is stopped first. */
export function remove(place: Place): void {
  const { bridgeId, conversation } = place;
  const { shown } = useChats.getState().views.get(bridgeId) ?? {};
  const running = [...(shown?.running ?? [])].filter(([, where]) => where === conversation);
  const stops: Edit[] = running.map(([run]) => ({ conversation, at: now(), kind: "stop", run }));
  want(bridgeId, ...stops, { conversation, at: now(), kind: "delete" });
  const { place: open } = useOpened.getState();
  if (open?.bridgeId === bridgeId && open.conversation === conversation) openPlace(null, "replace");
}

export function forgive(bridgeId: string, refusal: number): void {
  byBridge.get(bridgeId)?.forgive(refusal);
}
