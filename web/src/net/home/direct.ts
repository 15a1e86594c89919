/**
 * The way to a bridge that serves this page on loopback: the same paths and fields, without sealing, for there is
 * nobody between. Such a bridge says so in the page's head: `<meta name="c2l-home" content="direct">`.
 */
import { REQUEST_FIELD } from "@/net/call";
import { BreakError, follow, type Part } from "@/net/home/following";
import type { HomeRequest, HomeResponse, HomeTransport } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";

export { isServedByHome } from "@/net/home/served";

export class DirectTransport implements HomeTransport {
  constructor(readonly world: HomeWorld) {}

  fetch(request: HomeRequest, signal: AbortSignal): Promise<HomeResponse> {
    return follow((...asked) => this.#connect(...asked), request, signal, this.world);
  }

  async #connect(request: HomeRequest, offset: number, link: AbortSignal): Promise<Part> {
    const { method, path, exchange, content } = request;
    const headers = new Headers({ ...request.headers, ...REQUEST_FIELD });
    if (exchange !== undefined) headers.set("c2l-exchange", exchange);
    if (offset > 0) headers.set("c2l-offset", `${offset}`);
    const init: RequestInit = { method, headers, signal: link, cache: "no-store" };
    if (content !== undefined && offset === 0) init.body = new Uint8Array(content);
    let response: Response;
    try {
      response = await this.world.fetch(path, init);
    } catch {
      throw new BreakError();
    }
    const begins = response.headers.get("c2l-offset");
    return {
      status: response.status,
      headers: response.headers,
      offset: begins === null ? null : Number(begins),
      next: nextOf(response),
    };
  }
}

function nextOf(response: Response): Part["next"] {
  const reader = response.body?.getReader();
  return async () => {
    try {
      const read = await reader?.read();
      return read?.value === undefined ? null : new Uint8Array(read.value);
    } catch {
      throw new BreakError();
    }
  };
}
