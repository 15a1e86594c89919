/** One sealed request and what comes back, whatever it is for: an exchange, or a pairing. */
import { REQUEST_FIELD, retryAfterOf } from "@/net/call";
import { BreakError } from "@/net/home/following";
import { answerProblem, NOT_SEALED, OLD_BROWSER } from "@/net/home/problems";
import { sealedPath } from "@/net/home/statements";
import type { HomeWorld } from "@/net/home/world";
import { ProblemError, problemFrom } from "@/net/problem";
import { message, type RequestHead, type ResponseHead } from "@/protocol/sealed/bhttp";
import type { Bytes } from "@/protocol/sealed/bytes";
import { type Device, proofFields } from "@/protocol/sealed/device";
import { SealedError } from "@/protocol/sealed/errors";
import { ResponseReader, sealRequest } from "@/protocol/sealed/exchange";
import type { Fields } from "@/protocol/sealed/fields";
import type { KeyConfig } from "@/protocol/sealed/key-config";
import { REQUEST_TYPE, RESPONSE_TYPE, RequestSealer, type SharedSecret } from "@/protocol/sealed/ohttp";
import { PAIRING_REQUEST_TYPE, PAIRING_RESPONSE_TYPE } from "@/protocol/sealed/pairing";

export interface SealedRequest {
  readonly bridgeId: string;
  readonly config: KeyConfig;
  readonly device: Pick<Device, "id" | "privateKey">;
  readonly method: string;
  readonly path: string;
  readonly fields: Fields;
  readonly content?: Uint8Array | undefined;
  /** Of a pairing by link. */
  readonly shared?: SharedSecret;
}

/** An answer as far as its head. */
export interface SealedAnswer {
  readonly status: number;
  readonly fields: Fields;
  /** @throws BreakError - the rest did not come, or not unchanged. */
  next(): Promise<Bytes | null>;
}

/**
 * Seals, sends, and opens as far as the answer's head.
 *
 * @throws BreakError - there is no answer. ProblemError - it was refused in the clear, by the cloud or the gateway.
 */
export async function askSealed(
  request: SealedRequest,
  world: HomeWorld,
  link: AbortSignal,
): Promise<SealedAnswer> {
  const { bridgeId, config, device, method, path, content, shared } = request;
  const sealer = await sealerTo(config, shared);
  const fields = [...(await proofFields(sealer, device, new Date(world.date()))), ...request.fields];
  const head: RequestHead = { type: "request", method, scheme: "https", authority: "home", path, fields };
  const body = await sealRequest(sealer, message(head, content));
  const response = await send(bridgeId, body, shared !== undefined, world, link);
  const opener = await sealer.response();
  return await new AnswerReader(new ResponseReader(opener), response).head();
}

async function sealerTo(config: KeyConfig, shared: SharedSecret | undefined): Promise<RequestSealer> {
  try {
    return await RequestSealer.create(config, { shared });
  } catch (error) {
    // The key is signed, so what is amiss is the browser.
    if (error instanceof SealedError && error.code === "malformed") throw new ProblemError(OLD_BROWSER);
    throw error;
  }
}

async function send(
  bridgeId: string,
  body: Bytes,
  pairing: boolean,
  world: HomeWorld,
  link: AbortSignal,
): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const type = pairing ? PAIRING_REQUEST_TYPE : REQUEST_TYPE;
  let response: Response;
  try {
    response = await world.fetch(sealedPath(bridgeId), {
      method: "POST",
      headers: { ...REQUEST_FIELD, "Content-Type": type },
      body,
      signal: link,
      cache: "no-store",
    });
  } catch {
    throw new BreakError();
  }
  const got = response.headers.get("content-type")?.split(";")[0]?.trim();
  if (response.ok && got === (pairing ? PAIRING_RESPONSE_TYPE : RESPONSE_TYPE) && response.body !== null)
    return response.body.getReader();
  if (response.ok) {
    await response.body?.cancel().catch(() => {});
    throw new ProblemError(NOT_SEALED);
  }
  const problem = problemFrom(response.status, await response.text().catch(() => ""));
  const retryAfterS = retryAfterOf(response.headers.get("retry-after"));
  throw new ProblemError(retryAfterS === null ? problem : { ...problem, retryAfterS });
}

class AnswerReader implements SealedAnswer {
  #head: ResponseHead | undefined;
  #content: Bytes[] = [];
  #whole = false;

  constructor(
    readonly reader: ResponseReader,
    readonly source: ReadableStreamDefaultReader<Uint8Array>,
  ) {}

  get status(): number {
    return this.#head?.status ?? 0;
  }

  get fields(): Fields {
    return this.#head?.fields ?? [];
  }

  async head(): Promise<this> {
    while (this.#head === undefined) await this.#read();
    return this;
  }

  async next(): Promise<Bytes | null> {
    for (;;) {
      const bytes = this.#content.shift();
      if (bytes !== undefined) return bytes;
      if (this.#whole) return null;
      await this.#read();
    }
  }

  async #read(): Promise<void> {
    try {
      const { done, value } = await this.#chunk();
      for (const event of done ? await this.reader.end() : await this.reader.receive(value)) {
        if (event.type === "response") this.#head = event;
        else if (event.type === "content") this.#content.push(event.data);
        else if (event.type === "end") this.#whole = true;
      }
    } catch (error) {
      void this.source.cancel().catch(() => {});
      if (!(error instanceof SealedError)) throw error;
      throw new BreakError(answerProblem(error) ?? undefined);
    }
  }

  async #chunk(): Promise<ReadableStreamReadResult<Uint8Array>> {
    try {
      return await this.source.read();
    } catch {
      throw new BreakError();
    }
  }
}
