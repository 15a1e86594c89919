/** Conversations out of a home into a file, and back. */
import { saveAs } from "@/features/chat/AttachmentList";
import { exportConversation, importConversation } from "@/net/home/api";
import { type Problem, ProblemError } from "@/net/problem";
import { useChats } from "@/store/conversation";
import { useHomes } from "@/store/homes";
import type { Place } from "@/store/place";

/** Bytes of one document, as the home takes them. */
const MOST_DOCUMENT = 64 * 1024 * 1024;

function transportOf(bridgeId: string) {
  const home = useHomes.getState().homes.find((candidate) => candidate.bridgeId === bridgeId);
  if (home === undefined) throw told("This browser is not paired with that machine", "");
  return home.transport;
}

function told(title: string, detail: string): ProblemError {
  const problem: Problem = { slug: null, title, detail, status: 0 };
  return new ProblemError(problem);
}

function download(parts: BlobPart[], name: string): void {
  const address = URL.createObjectURL(new Blob(parts, { type: "application/json" }));
  saveAs(address, name);
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** A title as part of a file's name. Pure. */
export function fileName(title: string): string {
  const safe = title
    .normalize("NFC")
    .replace(/[^\p{L}\p{N} _-]+/gu, " ")
    .trim()
    .replace(/\s+/g, "-");
  return `${[...safe].slice(0, 60).join("") || "conversation"}.json`;
}

/** @throws ProblemError - it could not be had. */
export async function exportOne({ bridgeId, conversation }: Place, title: string): Promise<void> {
  const { document } = await exportConversation(transportOf(bridgeId), conversation);
  download([JSON.stringify(document)], fileName(title));
}

/** Saves all conversations of all homes that can be reached, one document a line. Returns what to say of it, and of what is not in it. */
export async function exportAll(onProgress: (said: string) => void): Promise<string> {
  const lines: string[] = [];
  let left = 0;
  let away = 0;
  for (const { bridgeId, contact, shown } of useChats.getState().views.values()) {
    if (contact !== "live" || !shown.listed) {
      away += 1;
      continue;
    }
    const home = transportOf(bridgeId);
    for (const id of shown.heads.keys()) {
      onProgress(`${lines.length} conversations…`);
      try {
        lines.push(`${JSON.stringify((await exportConversation(home, id)).document)}\n`);
      } catch (error) {
        if (!(error instanceof ProblemError) || ![404, 409].includes(error.problem.status)) throw error;
        // One that is not there was deleted just now.
        if (error.problem.status === 409) left += 1;
      }
    }
  }
  download(lines, "conversations.jsonl");
  return exported(lines.length, left, away);
}

/** Pure. @param left - in which an answer is being written. @param away - machines that could not be reached. */
export function exported(count: number, left: number, away: number): string {
  const skipped = left === 0 ? "" : ` ${left} were left out, for an answer is being written in them.`;
  const machines = away === 1 ? "one machine" : `${away} machines`;
  const missing = away === 0 ? "" : ` Those of ${machines} that cannot be reached are not among them.`;
  return `${count} conversations were exported.${skipped}${missing}`;
}

/** The documents in a file: one, a list of them, or one a line. Pure. @throws SyntaxError */
export function documentsIn(text: string): readonly string[] {
  try {
    const whole: unknown = JSON.parse(text);
    return Array.isArray(whole) ? whole.map((each) => JSON.stringify(each)) : [text];
  } catch (error) {
    const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
    if (lines.length < 2) throw error;
    for (const line of lines) JSON.parse(line);
    return lines;
  }
}

/** @throws ProblemError - the rest was not imported. Returns what to say of it. */
export async function importFiles(
  bridgeId: string,
  files: readonly File[],
  onProgress: (said: string) => void,
): Promise<string> {
  const home = transportOf(bridgeId);
  let added = 0;
  let known = 0;
  for (const file of files) {
    let documents: readonly string[];
    try {
      documents = documentsIn(await file.text());
    } catch {
      throw told(`${file.name} is no export of conversations`, "It is not JSON.");
    }
    for (const document of documents) {
      onProgress(`${added + known} conversations…`);
      const content = new TextEncoder().encode(document);
      if (content.length > MOST_DOCUMENT)
        throw told(`${file.name} is too large`, "64 MiB are taken at most.");
      const imported = await importConversation(home, content);
      if (imported.added) added += 1;
      else known += 1;
    }
  }
  const there = known === 0 ? "" : ` ${known} were there already.`;
  return `${added} conversations were imported.${there}`;
}
