/**
 * A home behind a cloud, at fetch: the real envelope on both sides, a bridge's gateway in the small, and a cloud that can
 * be told to misbehave.
 */
import {
  AEAD_AES_128_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
  type KeyPair,
} from "hpke";
import type { HomeMemory, SealedHome, Trouble } from "@/net/home/sealed";
import type { HomeWorld } from "@/net/home/world";
import type { Message, RequestHead } from "@/protocol/sealed/bhttp";
import { encodeMessage, message } from "@/protocol/sealed/bhttp";
import { decodeMessage } from "@/protocol/sealed/bhttp-decoder";
import { type Bytes, concat, fromBase64Url, sameBytes, utf8 } from "@/protocol/sealed/bytes";
import {
  createDevice,
  type Device,
  deviceId,
  fingerprint,
  proofMessage,
  verify,
} from "@/protocol/sealed/device";
import { SealedError } from "@/protocol/sealed/errors";
import { type Fields, single } from "@/protocol/sealed/fields";
import { RequestOpener } from "@/protocol/sealed/gateway";
import { sharedSecret } from "@/protocol/sealed/pairing";
import { signStatement } from "@/protocol/sealed/statement";

const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);
const OHTTP_KEY = "https://iana.org/assignments/http-problem-types#ohttp-key";
export const BRIDGE = "br_home";
/** Seconds since the epoch. */
export const NOW = 1_790_000_000;

export interface Answer {
  readonly status: number;
  readonly fields?: Fields;
  readonly content: Bytes;
}

interface Identity {
  readonly publicKey: Bytes;
  readonly privateKey: CryptoKey;
}

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly fields: Fields;
  readonly content: string;
  readonly offset: number;
}

export function problemDocument(slug: string, status: number, type = `urn:c2l:problem:${slug}`): Bytes {
  return utf8(JSON.stringify({ type, title: slug, detail: "Because.", status }));
}

export function problemAnswer(slug: string, status: number): Answer {
  return {
    status,
    fields: [["content-type", "application/problem+json"]],
    content: problemDocument(slug, status),
  };
}

const DATE: Answer = {
  ...problemAnswer("date", 400),
  content: problemDocument("date", 400, "https://iana.org/assignments/http-problem-types#date"),
};

export function inTheClear(slug: string, status: number, type?: string): Response {
  return new Response(problemDocument(slug, status, type), {
    status,
    headers: { "content-type": "application/problem+json" },
  });
}

/** What a bridge's gateway and engine do. */
export class SmallHome {
  readonly devices = new Map<string, Bytes>();
  readonly waiting = new Map<string, Bytes>();
  readonly removed = new Set<string>();
  readonly secrets: Bytes[] = [];
  /** What was opened and answered, in order. */
  readonly asked: Asked[] = [];
  /** How often the engine began. */
  begun = 0;
  keys = new Map<number, KeyPair<CryptoKey>>();
  seq = 1;
  now = NOW;
  answer: (asked: Asked) => Answer = () => ({ status: 200, content: utf8("hello") });
  readonly #journal = new Map<string, Answer>();

  private constructor(public identity: Identity) {}

  static async create(): Promise<SmallHome> {
    const home = new SmallHome(await newIdentity());
    await home.rotate(7);
    return home;
  }

  async rotate(keyId: number): Promise<void> {
    this.keys = new Map([[keyId, await suite.GenerateKeyPair(true)]]);
    this.seq += 1;
  }

  async fingerprint(): Promise<Bytes> {
    return await fingerprint(this.identity.publicKey);
  }

  async statement({ seq = this.seq, issued = this.now, bridgeId = BRIDGE } = {}): Promise<string> {
    const configs = [];
    for (const [keyId, pair] of this.keys)
      configs.push({ keyId, publicKey: new Uint8Array(await suite.SerializePublicKey(pair.publicKey)) });
    const [first, ...others] = configs;
    if (first === undefined) throw new Error("expected a key");
    const claims = { bridgeId, configs: [first, ...others] as const, issued, expires: issued + 3600, seq };
    return await signStatement(claims, this.identity.publicKey, this.identity.privateKey);
  }

  /** Returns the sealed answer, in the chunks in which it leaves. */
  async take(body: Bytes, pairing: boolean): Promise<Bytes[] | Response> {
    const secrets = await Promise.all(this.secrets.map(sharedSecret));
    const secretOf = (id: Bytes) => secrets.find((shared) => sameBytes(shared.id, id))?.secret;
    const opener = new RequestOpener((keyId) => this.keys.get(keyId), pairing ? secretOf : undefined);
    let opened: Message;
    try {
      const plain = await opener.receive(body);
      opened = decodeMessage(concat(...plain, await opener.end()), "request");
    } catch (error) {
      if (!(error instanceof SealedError)) throw error;
      if (error.code === "unknown-key") return inTheClear("ohttp-key", 400, OHTTP_KEY);
      return inTheClear("bad-request", 400);
    }
    const head = opened.head as RequestHead;
    const introduction = pairing || (head.method === "POST" && head.path === "/c2l/devices");
    const answer = introduction
      ? await this.#introduced(opener, head, opened.content, pairing)
      : await this.#answered(opener, head, opened.content);
    const sealer = await opener.response(crypto.getRandomValues(new Uint8Array(16)));
    const { status, content } = answer;
    const response = { type: "response", status, fields: answer.fields ?? [] } as const;
    const plain = encodeMessage(message(response, content), { streamed: true });
    const chunks = [sealer.header];
    for (let at = 0; at < plain.length; at += 24) chunks.push(await sealer.seal(plain.subarray(at, at + 24)));
    return [...chunks, await sealer.sealFinal()];
  }

  async #introduced(
    opener: RequestOpener,
    head: RequestHead,
    content: Uint8Array,
    byLink: boolean,
  ): Promise<Answer> {
    const { key } = JSON.parse(new TextDecoder().decode(content)) as { key: string };
    const point = fromBase64Url(key, "a key", 65);
    if (!(await this.#proves(opener, head, point))) return problemAnswer("unauthenticated", 401);
    const id = await deviceId(point);
    if (this.#isSkewed(head)) return DATE;
    if (this.removed.has(id)) return problemAnswer("conflict", 409);
    if (byLink) {
      this.secrets.length = 0;
      this.devices.set(id, point);
    } else if (!this.devices.has(id)) this.waiting.set(id, point);
    const paired = this.devices.has(id);
    return { status: paired ? 200 : 202, content: utf8(JSON.stringify({ id, paired })) };
  }

  async #answered(opener: RequestOpener, head: RequestHead, content: Uint8Array): Promise<Answer> {
    const id = single(head.fields, "c2l-device") ?? "";
    const point = this.devices.get(id);
    if (point === undefined) return problemAnswer("device-unknown", 401);
    if (!(await this.#proves(opener, head, point))) return problemAnswer("unauthenticated", 401);
    if (this.#isSkewed(head)) return DATE;
    const offset = Number(single(head.fields, "c2l-offset") ?? "0");
    const asked: Asked = {
      method: head.method,
      path: head.path,
      fields: head.fields,
      content: new TextDecoder().decode(content),
      offset,
    };
    this.asked.push(asked);
    const exchange = single(head.fields, "c2l-exchange");
    if (exchange === undefined) return this.#begin(asked);
    const known = this.#journal.get(`${id} ${exchange}`);
    if (known === undefined && offset > 0) return problemAnswer("exchange-unknown", 404);
    const whole = known ?? this.#begin(asked);
    this.#journal.set(`${id} ${exchange}`, whole);
    const fields: Fields = [...(whole.fields ?? []), ["c2l-offset", `${offset}`]];
    return { ...whole, fields, content: whole.content.slice(offset) };
  }

  forgetAnswers(): void {
    this.#journal.clear();
  }

  #begin(asked: Asked): Answer {
    this.begun += 1;
    return this.answer(asked);
  }

  #isSkewed(head: RequestHead): boolean {
    return Math.abs(Date.parse(single(head.fields, "date") ?? "") / 1000 - this.now) > 120;
  }

  async #proves(opener: RequestOpener, head: RequestHead, point: Bytes): Promise<boolean> {
    const proof = fromBase64Url(single(head.fields, "c2l-proof"), "a proof", 64);
    return await verify(point, proof, await proofMessage(opener));
  }
}

export async function newIdentity(): Promise<Identity> {
  const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { publicKey, privateKey: pair.privateKey };
}

/** What the cloud does with one request instead of what it should; `undefined` to let it pass. */
export type Interference = (asked: {
  readonly method: string;
  readonly body: Bytes;
  readonly nth: number;
}) => Response | Error | ((chunks: Bytes[]) => Bytes[] | Response) | undefined;

/** The cloud between, and the browser's clock. */
export class SmallCloud implements HomeWorld {
  readonly requests: { readonly method: string; readonly path: string; readonly body: Bytes }[] = [];
  interfere: Interference = () => undefined;
  /** Instead of the home's own. */
  statement: (() => Promise<string>) | undefined;
  slept = 0;
  skew = 0;
  readonly #wakes = new Set<() => void>();

  constructor(readonly home: SmallHome) {}

  readonly fetch = async (path: string, init: RequestInit): Promise<Response> => {
    init.signal?.throwIfAborted();
    const method = init.method ?? "GET";
    const body = (init.body ?? new Uint8Array()) as Bytes;
    if (new Headers(init.headers).get("c2l-request") !== "1") return inTheClear("forbidden", 403);
    this.requests.push({ method, path, body });
    const nth = this.requests.filter((request) => request.method === method).length;
    const done = this.interfere({ method, body, nth });
    if (done instanceof Error) throw done;
    if (done instanceof Response) return done;
    if (path !== `/e2e/${BRIDGE}`) return inTheClear("not-found", 404);
    if (method === "GET") {
      const text = await (this.statement?.() ?? this.home.statement());
      return new Response(text, { headers: { "content-type": "application/c2l-keys+jwt" } });
    }
    const type = new Headers(init.headers).get("content-type");
    const pairing = type === "application/c2l-pairing-req";
    const sealed = await this.home.take(body, pairing);
    if (sealed instanceof Response) return sealed;
    const chunks = done === undefined ? sealed : done(sealed);
    if (chunks instanceof Response) return chunks;
    return new Response(streamOf(chunks, init.signal ?? undefined), {
      headers: { "content-type": pairing ? "application/c2l-pairing-res" : "message/ohttp-chunked-res" },
    });
  };

  readonly sleep = async (ms: number): Promise<void> => {
    this.slept += ms;
  };

  readonly now = (): number => this.slept;
  readonly date = (): number => (this.home.now + this.skew) * 1000;
  readonly random = (): number => 1;
  readonly onWake = (listener: () => void): (() => void) => {
    this.#wakes.add(listener);
    return () => this.#wakes.delete(listener);
  };

  wake(): void {
    for (const listener of [...this.#wakes]) listener();
  }
}

function streamOf(chunks: readonly Bytes[], signal?: AbortSignal): ReadableStream<Uint8Array> {
  const rest = [...chunks];
  return new ReadableStream<Uint8Array>({
    start(controller) {
      signal?.addEventListener("abort", () => controller.error(signal.reason));
    },
    pull(controller) {
      const chunk = rest.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  });
}

/** What a browser keeps of a home. */
export class Memory implements HomeMemory {
  seq = 0;
  readonly troubles: (Trouble | null)[] = [];
  highest = async (): Promise<number> => this.seq;
  accept = async (seq: number): Promise<void> => {
    this.seq = Math.max(seq, this.seq);
  };
  onTrouble(trouble: Trouble | null): void {
    this.troubles.push(trouble);
  }
}

/** Pairs a browser with a home as if it had been done long ago. */
export async function pairedWith(home: SmallHome): Promise<SealedHome & { readonly device: Device }> {
  const device = await createDevice();
  home.devices.set(device.id, device.point);
  return { bridgeId: BRIDGE, fingerprint: await home.fingerprint(), device };
}
