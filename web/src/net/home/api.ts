/** The typed client of the home API. Made from docs/reference/home-api.json by `npm run generate`: do not edit. */
import { segment } from "@/net/call";
import { fields, oneOf, text } from "@/net/decode";
import { askBytes, askEvents, askJson, askNothing } from "@/net/home/request";
import { flag, listOf, maybe, number, orNull } from "@/net/home/shapes";
import type { HomeTransport } from "@/net/home/transport";

/** An attachment of a message. */
export interface Attached {
  readonly sha256: string;
  readonly name: string;
  readonly media_type: string;
  readonly size: number;
}

/** @throws DecodeError */
export function readAttached(value: unknown): Attached {
  const document = fields(value);
  return {
    sha256: text(document["sha256"]),
    name: text(document["name"]),
    media_type: text(document["media_type"]),
    size: number(document["size"]),
  };
}

/** One change: what to read again, never the content itself. */
export interface Change {
  readonly n: number;
  readonly at: number;
  readonly kind: string;
  readonly id: string;
  readonly conversation: string;
  readonly gone: boolean;
}

/** @throws DecodeError */
export function readChange(value: unknown): Change {
  const document = fields(value);
  return {
    n: number(document["n"]),
    at: number(document["at"]),
    kind: text(document["kind"]),
    id: text(document["id"]),
    conversation: text(document["conversation"]),
    gone: flag(document["gone"]),
  };
}

/** What happened after a change. */
export interface Changes {
  readonly epoch: string;
  readonly changes: readonly Change[];
  readonly newest: number;
}

/** @throws DecodeError */
export function readChanges(value: unknown): Changes {
  const document = fields(value);
  return {
    epoch: text(document["epoch"]),
    changes: listOf(readChange)(document["changes"]),
    newest: number(document["newest"]),
  };
}

/** What a list shows of a conversation. Times are seconds since the epoch. */
export interface Conversation {
  readonly id: string;
  readonly title: string;
  readonly pinned: boolean;
  readonly created: number;
  readonly updated: number;
  readonly leaf: string | null;
}

/** @throws DecodeError */
export function readConversation(value: unknown): Conversation {
  const document = fields(value);
  return {
    id: text(document["id"]),
    title: text(document["title"]),
    pinned: flag(document["pinned"]),
    created: number(document["created"]),
    updated: number(document["updated"]),
    leaf: orNull(text)(document["leaf"]),
  };
}

/** What to change of a conversation; null leaves it. */
export interface ConversationEdit {
  readonly title?: string | null | undefined;
  readonly pinned?: boolean | null | undefined;
}

/** A device. Times are seconds since the epoch. */
export interface Device {
  readonly id: string;
  readonly name: string;
  readonly paired: boolean;
  readonly approved_by: string;
  readonly added: number;
  readonly last_seen: number | null;
}

/** @throws DecodeError */
export function readDevice(value: unknown): Device {
  const document = fields(value);
  return {
    id: text(document["id"]),
    name: text(document["name"]),
    paired: flag(document["paired"]),
    approved_by: text(document["approved_by"]),
    added: number(document["added"]),
    last_seen: orNull(number)(document["last_seen"]),
  };
}

/** All devices, the oldest first. */
export interface Devices {
  readonly devices: readonly Device[];
  readonly own: string | null;
}

/** @throws DecodeError */
export function readDevices(value: unknown): Devices {
  const document = fields(value);
  return {
    devices: listOf(readDevice)(document["devices"]),
    own: orNull(text)(document["own"]),
  };
}

/** An exported conversation, as docs/reference/home-store.md describes it. */
export interface Document {
  readonly document: Readonly<Record<string, unknown>>;
}

/** @throws DecodeError */
export function readDocument(value: unknown): Document {
  const document = fields(value);
  return {
    document: fields(document["document"]),
  };
}

/** One conversation of an export. */
export interface Exported {
  readonly id: string;
  readonly document: Readonly<Record<string, unknown>> | null;
}

/** @throws DecodeError */
export function readExported(value: unknown): Exported {
  const document = fields(value);
  return {
    id: text(document["id"]),
    document: orNull(fields)(document["document"]),
  };
}

/** Where something was found. */
export interface Hit {
  readonly conversation: string;
  readonly title: string;
  readonly message: string | null;
  readonly snippet: readonly Part[];
  readonly score: number;
}

/** @throws DecodeError */
export function readHit(value: unknown): Hit {
  const document = fields(value);
  return {
    conversation: text(document["conversation"]),
    title: text(document["title"]),
    message: orNull(text)(document["message"]),
    snippet: listOf(readPart)(document["snippet"]),
    score: number(document["score"]),
  };
}

/** What a search found, the best first. */
export interface Hits {
  readonly hits: readonly Hit[];
}

/** @throws DecodeError */
export function readHits(value: unknown): Hits {
  const document = fields(value);
  return {
    hits: listOf(readHit)(document["hits"]),
  };
}

/** What came of a document. */
export interface Imported {
  readonly id: string;
  readonly added: boolean;
}

/** @throws DecodeError */
export function readImported(value: unknown): Imported {
  const document = fields(value);
  return {
    id: text(document["id"]),
    added: flag(document["added"]),
  };
}

/** An API key. Times are seconds since the epoch. */
export interface Key {
  readonly id: string;
  readonly name: string;
  readonly created: number;
  readonly expires: number;
  readonly last_used: number | null;
  readonly revoked: boolean;
  readonly routes: readonly string[];
  readonly models: readonly string[];
  readonly requests_per_minute: number | null;
  readonly tokens_per_day: number | null;
  readonly tokens_today: number;
  readonly bridge: string | null;
}

/** @throws DecodeError */
export function readKey(value: unknown): Key {
  const document = fields(value);
  return {
    id: text(document["id"]),
    name: text(document["name"]),
    created: number(document["created"]),
    expires: number(document["expires"]),
    last_used: orNull(number)(document["last_used"]),
    revoked: flag(document["revoked"]),
    routes: listOf(text)(document["routes"]),
    models: listOf(text)(document["models"]),
    requests_per_minute: orNull(number)(document["requests_per_minute"]),
    tokens_per_day: orNull(number)(document["tokens_per_day"]),
    tokens_today: number(document["tokens_today"]),
    bridge: orNull(text)(document["bridge"]),
  };
}

/** The API keys that this home knows. */
export interface Keys {
  readonly keys: readonly Key[];
}

/** @throws DecodeError */
export function readKeys(value: unknown): Keys {
  const document = fields(value);
  return {
    keys: listOf(readKey)(document["keys"]),
  };
}

/** One message. Times are seconds since the epoch. */
export interface Message {
  readonly id: string;
  readonly parent: string | null;
  readonly role: string;
  readonly content: string;
  readonly thinking: string;
  readonly tool_calls: readonly string[];
  readonly model: string;
  readonly created: number;
  readonly attachments: readonly Attached[];
  readonly run: string | null;
}

/** @throws DecodeError */
export function readMessage(value: unknown): Message {
  const document = fields(value);
  return {
    id: text(document["id"]),
    parent: orNull(text)(document["parent"]),
    role: text(document["role"]),
    content: text(document["content"]),
    thinking: text(document["thinking"]),
    tool_calls: listOf(text)(document["tool_calls"]),
    model: text(document["model"]),
    created: number(document["created"]),
    attachments: listOf(readAttached)(document["attachments"]),
    run: orNull(text)(document["run"]),
  };
}

/** The new text of a message. */
export interface MessageEdit {
  readonly content: string;
  readonly id?: string | null | undefined;
}

/** A model that an engine at home has. */
export interface Model {
  readonly name: string;
  readonly engine: string;
  readonly kind: "ollama" | "openai" | "demo";
  readonly state: "up" | "down" | "loading";
  readonly loaded: boolean;
  readonly cloud: boolean;
}

/** @throws DecodeError */
export function readModel(value: unknown): Model {
  const document = fields(value);
  return {
    name: text(document["name"]),
    engine: text(document["engine"]),
    kind: oneOf(document["kind"], ["ollama", "openai", "demo"]),
    state: oneOf(document["state"], ["up", "down", "loading"]),
    loaded: flag(document["loaded"]),
    cloud: flag(document["cloud"]),
  };
}

/** Names a model. */
export interface ModelName {
  readonly model: string;
}

/** All models, and the pulls that go on or have lately ended. */
export interface Models {
  readonly models: readonly Model[];
  readonly pulls: readonly Progress[];
}

/** @throws DecodeError */
export function readModels(value: unknown): Models {
  const document = fields(value);
  return {
    models: listOf(readModel)(document["models"]),
    pulls: listOf(readProgress)(document["pulls"]),
  };
}

/** A new name. */
export interface Name {
  readonly name: string;
}

/** What to attach to a message. */
export interface NewAttached {
  readonly sha256: string;
  readonly name?: string | undefined;
  readonly media_type?: string | undefined;
}

/** A conversation that is not there yet. */
export interface NewConversation {
  readonly title?: string | undefined;
  readonly id?: string | null | undefined;
  readonly pinned?: boolean | undefined;
}

/** A message that is not there yet. */
export interface NewMessage {
  readonly role: string;
  readonly content: string;
  readonly parent?: string | null | undefined;
  readonly id?: string | null | undefined;
  readonly model?: string | undefined;
  readonly attachments?: readonly NewAttached[] | undefined;
}

/** A part of the list. */
export interface Page {
  readonly conversations: readonly Conversation[];
  readonly after: string | null;
}

/** @throws DecodeError */
export function readPage(value: unknown): Page {
  const document = fields(value);
  return {
    conversations: listOf(readConversation)(document["conversations"]),
    after: orNull(text)(document["after"]),
  };
}

/** A link that pairs one more device. */
export interface PairingOffer {
  readonly link_fragment: string;
  readonly expires: number;
}

/** @throws DecodeError */
export function readPairingOffer(value: unknown): PairingOffer {
  const document = fields(value);
  return {
    link_fragment: text(document["link_fragment"]),
    expires: number(document["expires"]),
  };
}

/** A part of a snippet. */
export interface Part {
  readonly text: string;
  readonly hit: boolean;
}

/** @throws DecodeError */
export function readPart(value: unknown): Part {
  const document = fields(value);
  return {
    text: text(document["text"]),
    hit: flag(document["hit"]),
  };
}

/** Settings of this home, the same for all its devices. */
export interface Preferences {
  readonly quota_bytes?: number | undefined;
  readonly retention_days?: number | undefined;
  readonly default_model?: string | undefined;
  readonly system_prompt?: string | undefined;
}

/** @throws DecodeError */
export function readPreferences(value: unknown): Preferences {
  const document = fields(value);
  return {
    quota_bytes: maybe(number)(document["quota_bytes"]),
    retention_days: maybe(number)(document["retention_days"]),
    default_model: maybe(text)(document["default_model"]),
    system_prompt: maybe(text)(document["system_prompt"]),
  };
}

/** How far a pull is. */
export interface Progress {
  readonly model: string;
  readonly state: string;
  readonly status?: string | undefined;
  readonly done_bytes?: number | undefined;
  readonly total_bytes?: number | undefined;
  readonly reason?: string | undefined;
  readonly detail?: string | undefined;
}

/** @throws DecodeError */
export function readProgress(value: unknown): Progress {
  const document = fields(value);
  return {
    model: text(document["model"]),
    state: text(document["state"]),
    status: maybe(text)(document["status"]),
    done_bytes: maybe(number)(document["done_bytes"]),
    total_bytes: maybe(number)(document["total_bytes"]),
    reason: maybe(text)(document["reason"]),
    detail: maybe(text)(document["detail"]),
  };
}

/** One answer of an engine. Times are seconds since the epoch. */
export interface Run {
  readonly id: string;
  readonly conversation: string;
  readonly message: string;
  readonly model: string;
  readonly state: "queued" | "loading" | "streaming" | "done" | "stopped" | "failed" | "interrupted";
  readonly reason: string;
  readonly detail: string;
  readonly created: number;
  readonly ended: number | null;
  readonly size: number;
  readonly prompt_tokens: number | null;
  readonly answer_tokens: number | null;
}

/** @throws DecodeError */
export function readRun(value: unknown): Run {
  const document = fields(value);
  return {
    id: text(document["id"]),
    conversation: text(document["conversation"]),
    message: text(document["message"]),
    model: text(document["model"]),
    state: oneOf(document["state"], [
      "queued",
      "loading",
      "streaming",
      "done",
      "stopped",
      "failed",
      "interrupted",
    ]),
    reason: text(document["reason"]),
    detail: text(document["detail"]),
    created: number(document["created"]),
    ended: orNull(number)(document["ended"]),
    size: number(document["size"]),
    prompt_tokens: orNull(number)(document["prompt_tokens"]),
    answer_tokens: orNull(number)(document["answer_tokens"]),
  };
}

/** What happens in a run. */
export interface RunEvent {
  readonly state: "queued" | "loading" | "streaming" | "done" | "stopped" | "failed" | "interrupted";
  readonly text: RunText | null;
  readonly run: Run | null;
}

/** @throws DecodeError */
export function readRunEvent(value: unknown): RunEvent {
  const document = fields(value);
  return {
    state: oneOf(document["state"], [
      "queued",
      "loading",
      "streaming",
      "done",
      "stopped",
      "failed",
      "interrupted",
    ]),
    text: orNull(readRunText)(document["text"]),
    run: orNull(readRun)(document["run"]),
  };
}

/** How an engine is to answer; what is null is the engine's choice. */
export interface RunOptions {
  readonly temperature?: number | null | undefined;
  readonly top_p?: number | null | undefined;
  readonly max_tokens?: number | null | undefined;
  readonly seed?: number | null | undefined;
  readonly stop?: readonly string[] | null | undefined;
  readonly reasoning_effort?: string | null | undefined;
}

/** A run that is not there yet. */
export interface RunStart {
  readonly model: string;
  readonly parent: string;
  readonly options?: RunOptions | undefined;
  readonly id?: string | null | undefined;
}

/** A piece of a run's text. */
export interface RunText {
  readonly at: number;
  readonly end: number;
  readonly kind: "content" | "thinking" | "tool_call";
  readonly text: string;
}

/** @throws DecodeError */
export function readRunText(value: unknown): RunText {
  const document = fields(value);
  return {
    at: number(document["at"]),
    end: number(document["end"]),
    kind: oneOf(document["kind"], ["content", "thinking", "tool_call"]),
    text: text(document["text"]),
  };
}

/** Runs that go on. */
export interface Runs {
  readonly runs: readonly Run[];
}

/** @throws DecodeError */
export function readRuns(value: unknown): Runs {
  const document = fields(value);
  return {
    runs: listOf(readRun)(document["runs"]),
  };
}

/** The home as a whole. */
export interface State {
  readonly version: string;
  readonly epoch: string;
  readonly newest: number;
  readonly notice: string;
  readonly used_bytes: number;
  readonly quota_bytes: number;
}

/** @throws DecodeError */
export function readState(value: unknown): State {
  const document = fields(value);
  return {
    version: text(document["version"]),
    epoch: text(document["epoch"]),
    newest: number(document["newest"]),
    notice: text(document["notice"]),
    used_bytes: number(document["used_bytes"]),
    quota_bytes: number(document["quota_bytes"]),
  };
}

/** An attachment that was stored. */
export interface Stored {
  readonly sha256: string;
}

/** @throws DecodeError */
export function readStored(value: unknown): Stored {
  const document = fields(value);
  return {
    sha256: text(document["sha256"]),
  };
}

/** A conversation with all its messages, the oldest first, and its newest runs. */
export interface WholeConversation {
  readonly conversation: Conversation;
  readonly messages: readonly Message[];
  readonly runs: readonly Run[];
}

/** @throws DecodeError */
export function readWholeConversation(value: unknown): WholeConversation {
  const document = fields(value);
  return {
    conversation: readConversation(document["conversation"]),
    messages: listOf(readMessage)(document["messages"]),
    runs: listOf(readRun)(document["runs"]),
  };
}

/** Store an attachment, to be named in a message within a day. */
export function storeAttachment(
  home: HomeTransport,
  content: Uint8Array,
  signal?: AbortSignal,
): Promise<Stored> {
  return askJson(home, "PUT", "/attachments", readStored, { content, signal });
}

/** Get an attachment. */
export function getAttachment(
  home: HomeTransport,
  sha256: string,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  return askBytes(home, "GET", `/attachments/${segment(sha256)}`, { signal });
}

/** List what changed after a change; 410 (reload) when that is not known any more. */
export function listChanges(
  home: HomeTransport,
  query: { readonly epoch: string; readonly since: number },
  signal?: AbortSignal,
): Promise<Changes> {
  return askJson(home, "GET", "/changes", readChanges, { query, signal });
}

/** Watch what changes after a change; 410 (reload) when that is not known any more. */
export function watchChanges(
  home: HomeTransport,
  query: { readonly epoch: string; readonly since: number },
  signal?: AbortSignal,
): AsyncGenerator<Changes> {
  return askEvents(home, "GET", "/changes/events", readChanges, { query, signal });
}

/** List conversations, those that changed last first. */
export function listConversations(
  home: HomeTransport,
  query: { readonly after?: string | null; readonly limit?: number } = {},
  signal?: AbortSignal,
): Promise<Page> {
  return askJson(home, "GET", "/conversations", readPage, { query, signal });
}

/** Begin a conversation. */
export function createConversation(
  home: HomeTransport,
  body: NewConversation,
  signal?: AbortSignal,
): Promise<Conversation> {
  return askJson(home, "POST", "/conversations", readConversation, { body, signal });
}

/** Delete a conversation for good. */
export function deleteConversation(
  home: HomeTransport,
  conversation: string,
  signal?: AbortSignal,
): Promise<void> {
  return askNothing(home, "DELETE", `/conversations/${segment(conversation)}`, { signal });
}

/** Get a conversation with all its messages. */
export function getConversation(
  home: HomeTransport,
  conversation: string,
  signal?: AbortSignal,
): Promise<WholeConversation> {
  return askJson(home, "GET", `/conversations/${segment(conversation)}`, readWholeConversation, { signal });
}

/** Rename or pin a conversation. */
export function editConversation(
  home: HomeTransport,
  conversation: string,
  body: ConversationEdit,
  signal?: AbortSignal,
): Promise<Conversation> {
  return askJson(home, "PATCH", `/conversations/${segment(conversation)}`, readConversation, {
    body,
    signal,
  });
}

/** Export a conversation. */
export function exportConversation(
  home: HomeTransport,
  conversation: string,
  signal?: AbortSignal,
): Promise<Document> {
  return askJson(home, "GET", `/conversations/${segment(conversation)}/export`, readDocument, { signal });
}

/** Add a message; it becomes the end of the active path. */
export function addMessage(
  home: HomeTransport,
  conversation: string,
  body: NewMessage,
  signal?: AbortSignal,
): Promise<Message> {
  return askJson(home, "POST", `/conversations/${segment(conversation)}/messages`, readMessage, {
    body,
    signal,
  });
}

/** Delete a message and all that follows from it. */
export function deleteMessage(
  home: HomeTransport,
  conversation: string,
  message: string,
  signal?: AbortSignal,
): Promise<void> {
  return askNothing(home, "DELETE", `/conversations/${segment(conversation)}/messages/${segment(message)}`, {
    signal,
  });
}

/** Have the active path lead through a message. */
export function chooseMessage(
  home: HomeTransport,
  conversation: string,
  message: string,
  signal?: AbortSignal,
): Promise<Conversation> {
  return askJson(
    home,
    "POST",
    `/conversations/${segment(conversation)}/messages/${segment(message)}/choose`,
    readConversation,
    { signal },
  );
}

/** Write a message anew, as a sibling of it. */
export function editMessage(
  home: HomeTransport,
  conversation: string,
  message: string,
  body: MessageEdit,
  signal?: AbortSignal,
): Promise<Message> {
  return askJson(
    home,
    "POST",
    `/conversations/${segment(conversation)}/messages/${segment(message)}/edit`,
    readMessage,
    { body, signal },
  );
}

/** Start an answer; it goes on whoever watches. */
export function startRun(
  home: HomeTransport,
  conversation: string,
  body: RunStart,
  signal?: AbortSignal,
): Promise<Run> {
  return askJson(home, "POST", `/conversations/${segment(conversation)}/runs`, readRun, { body, signal });
}

/** List the devices that may use this home, and those that wait. */
export function listDevices(home: HomeTransport, signal?: AbortSignal): Promise<Devices> {
  return askJson(home, "GET", "/devices", readDevices, { signal });
}

/** Remove a device; it is refused at once, and for good. */
export function removeDevice(home: HomeTransport, device: string, signal?: AbortSignal): Promise<void> {
  return askNothing(home, "DELETE", `/devices/${segment(device)}`, { signal });
}

/** Rename a device. */
export function renameDevice(
  home: HomeTransport,
  device: string,
  body: Name,
  signal?: AbortSignal,
): Promise<Device> {
  return askJson(home, "PATCH", `/devices/${segment(device)}`, readDevice, { body, signal });
}

/** Let a device in that waits. */
export function approveDevice(home: HomeTransport, device: string, signal?: AbortSignal): Promise<Device> {
  return askJson(home, "POST", `/devices/${segment(device)}/approve`, readDevice, { signal });
}

/** Export every conversation, one event each. */
export function exportAll(home: HomeTransport, signal?: AbortSignal): AsyncGenerator<Exported> {
  return askEvents(home, "GET", "/export", readExported, { signal });
}

/** Tell how the home is. */
export function getHome(home: HomeTransport, signal?: AbortSignal): Promise<State> {
  return askJson(home, "GET", "/home", readState, { signal });
}

/** Import a conversation; one that is there already stays as it is. */
export function importConversation(
  home: HomeTransport,
  content: Uint8Array,
  signal?: AbortSignal,
): Promise<Imported> {
  return askJson(home, "POST", "/import", readImported, { content, signal });
}

/** List the API keys. */
export function listKeys(home: HomeTransport, signal?: AbortSignal): Promise<Keys> {
  return askJson(home, "GET", "/keys", readKeys, { signal });
}

/** Revoke an API key at home, for good; what was asked for with it is stopped. */
export function revokeKey(home: HomeTransport, key: string, signal?: AbortSignal): Promise<void> {
  return askNothing(home, "DELETE", `/keys/${segment(key)}`, { signal });
}

/** List the models of every engine, as they last listed them. */
export function listModels(home: HomeTransport, signal?: AbortSignal): Promise<Models> {
  return askJson(home, "GET", "/models", readModels, { signal });
}

/** Delete a model from its engine. */
export function deleteModel(home: HomeTransport, body: ModelName, signal?: AbortSignal): Promise<void> {
  return askNothing(home, "POST", "/models/delete", { body, signal });
}

/** Pull a model, or watch the pull of it that goes on; it goes on whoever watches. */
export function pullModel(
  home: HomeTransport,
  body: ModelName,
  signal?: AbortSignal,
): AsyncGenerator<Progress> {
  return askEvents(home, "POST", "/models/pull", readProgress, { body, signal });
}

/** Stop a pull; the engine keeps what it has for the next time. */
export function stopPull(home: HomeTransport, body: ModelName, signal?: AbortSignal): Promise<Progress> {
  return askJson(home, "POST", "/models/pull/stop", readProgress, { body, signal });
}

/** Make a link that pairs one more device. */
export function offerPairing(home: HomeTransport, signal?: AbortSignal): Promise<PairingOffer> {
  return askJson(home, "POST", "/pairings", readPairingOffer, { signal });
}

/** List the runs that go on. */
export function listRuns(home: HomeTransport, signal?: AbortSignal): Promise<Runs> {
  return askJson(home, "GET", "/runs", readRuns, { signal });
}

/** Tell how a run is. */
export function getRun(home: HomeTransport, run: string, signal?: AbortSignal): Promise<Run> {
  return askJson(home, "GET", `/runs/${segment(run)}`, readRun, { signal });
}

/** Watch a run from an offset on until it has ended. */
export function watchRun(
  home: HomeTransport,
  run: string,
  query: { readonly offset?: number } = {},
  signal?: AbortSignal,
): AsyncGenerator<RunEvent> {
  return askEvents(home, "GET", `/runs/${segment(run)}/events`, readRunEvent, { query, signal });
}

/** Stop a run; what was written so far is kept. */
export function stopRun(home: HomeTransport, run: string, signal?: AbortSignal): Promise<Run> {
  return askJson(home, "POST", `/runs/${segment(run)}/stop`, readRun, { signal });
}

/** Search titles and messages; any text is a query. */
export function searchAll(
  home: HomeTransport,
  query: { readonly query: string; readonly limit?: number },
  signal?: AbortSignal,
): Promise<Hits> {
  return askJson(home, "GET", "/search", readHits, { query, signal });
}

/** Get this home's settings. */
export function getSettings(home: HomeTransport, signal?: AbortSignal): Promise<Preferences> {
  return askJson(home, "GET", "/settings", readPreferences, { signal });
}

/** Set this home's settings, all of them. */
export function putSettings(
  home: HomeTransport,
  body: Preferences,
  signal?: AbortSignal,
): Promise<Preferences> {
  return askJson(home, "PUT", "/settings", readPreferences, { body, signal });
}
