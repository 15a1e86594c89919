/** Pictures and texts that go with a message: stored at home before it, and read from there to be shown. */
import { type Attached, getAttachment, storeAttachment } from "@/net/home/api";
import { type Problem, ProblemError } from "@/net/problem";
import { useHomes } from "@/store/homes";

/** As the home takes them. */
export const MOST_FILES = 16;
const MOST_BYTES = 16 * 1024 * 1024;
/** A text is part of the question: more than this would fill any model's memory. */
const MOST_TEXT_BYTES = 512 * 1024;
/** Of pictures that engines read and browsers show; nothing in them runs. */
const PICTURES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

export const PICKED_TYPES = [...PICTURES, "text/*", ".md", ".csv", ".json", ".py", ".ts", ".log"].join(",");

export function isPicture(mediaType: string): boolean {
  return PICTURES.includes(mediaType);
}

/** A file that is to go with what is being written. */
export interface Picked {
  readonly name: string;
  readonly mediaType: string;
  readonly content: Uint8Array<ArrayBuffer>;
}

function unfit(name: string, detail: string): ProblemError {
  const problem: Problem = { slug: null, title: `${name} cannot be attached`, detail, status: 0 };
  return new ProblemError(problem);
}

/** @throws ProblemError - it is neither a picture nor a text, or too large. */
export async function pick(file: File): Promise<Picked> {
  const name = file.name === "" ? "file" : file.name.slice(0, 80);
  if (file.size > MOST_BYTES) throw unfit(name, "It is larger than 16 MiB.");
  const content = new Uint8Array(await file.arrayBuffer());
  if (isPicture(file.type)) return { name, mediaType: file.type, content };
  if (content.length > MOST_TEXT_BYTES) throw unfit(name, "Texts may have 512 KiB.");
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(content);
    if (text.includes("\0")) throw new TypeError("expected a text");
  } catch {
    throw unfit(name, "Only pictures (PNG, JPEG, WebP, GIF) and texts in UTF-8 can be read by a model.");
  }
  const mediaType = /^text\/[\w.+-]+$/.test(file.type) ? file.type : "text/plain";
  return { name, mediaType, content };
}

/** Stores files at a home. @throws ProblemError - not all of them are there. */
export async function storeFiles(bridgeId: string, files: readonly Picked[]): Promise<readonly Attached[]> {
  const stored: Attached[] = [];
  for (const { name, mediaType: media_type, content } of files) {
    const { sha256 } = await storeAttachment(homeOf(bridgeId), content);
    stored.push({ sha256, name, media_type, size: content.length });
  }
  return stored;
}

function homeOf(bridgeId: string) {
  const home = useHomes.getState().homes.find((candidate) => candidate.bridgeId === bridgeId);
  if (home === undefined)
    throw new ProblemError({
      slug: null,
      title: "This browser is not paired with that machine",
      detail: "",
      status: 0,
    });
  return home.transport;
}

const MOST_KEPT = 64;
const kept = new Map<string, Promise<string>>();

/** Returns an address, within this page, of an attachment. @throws ProblemError */
export function addressOfAttachment(bridgeId: string, { sha256, media_type }: Attached): Promise<string> {
  const known = kept.get(sha256);
  if (known !== undefined) return known;
  const made = readAttachment(bridgeId, sha256, media_type);
  kept.set(sha256, made);
  made.catch(() => kept.delete(sha256));
  const [oldest] = kept;
  if (kept.size > MOST_KEPT && oldest !== undefined) {
    kept.delete(oldest[0]);
    void oldest[1].then((address) => URL.revokeObjectURL(address)).catch(() => {});
  }
  return made;
}

async function readAttachment(bridgeId: string, sha256: string, mediaType: string): Promise<string> {
  const content = await getAttachment(homeOf(bridgeId), sha256);
  // Whatever it is called, it is shown as a picture or offered as bytes; never as a page.
  const type = isPicture(mediaType) ? mediaType : "application/octet-stream";
  return URL.createObjectURL(new Blob([content], { type }));
}
