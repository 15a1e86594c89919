import { describe, expect, it } from "vitest";
import { Exchange, type ExchangeSink, type ExchangeWorld, type Outcome } from "@/net/exchange";

const BODY = "Hällo 🦙, this is the whole answer.[DONE]";
const BYTES = new TextEncoder().encode(BODY);

/** Serves one request: a response, or `undefined` for a connection that never came about. */
type Serve = (path: string, init: RequestInit) => Response | undefined;

/** A world in which time passes only by sleeping. */
function world(...serves: Serve[]): ExchangeWorld & { readonly asked: string[]; slept: number } {
  const asked: string[] = [];
  const made = {
    asked,
    slept: 0,
    fetch: (path: string, init: RequestInit): Promise<Response> => {
      asked.push(path);
      const serve = serves[Math.min(asked.length, serves.length) - 1];
      const response = serve?.(path, init);
      return response === undefined
        ? Promise.reject(new TypeError("Failed to fetch"))
        : Promise.resolve(response);
    },
    sleep: (ms: number): Promise<void> => {
      made.slept += ms;
      return Promise.resolve();
    },
    now: () => made.slept,
    random: () => 1,
  };
  return made;
}

/** A body of these bytes that then ends, or breaks. */
function body(bytes: Uint8Array, then: "ends" | "breaks"): Response {
  let sent = false;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (!sent && bytes.length > 0) {
        sent = true;
        controller.enqueue(bytes);
      } else if (then === "ends") controller.close();
      else controller.error(new TypeError("network error"));
    },
  });
  return new Response(stream);
}

function problem(slug: string, status: number): Response {
  const document = { type: `urn:c2l:problem:${slug}`, title: slug, detail: "Because.", status };
  return new Response(JSON.stringify(document), {
    status,
    headers: { "Content-Type": "application/problem+json" },
  });
}

class Reader implements ExchangeSink {
  readonly decoder = new TextDecoder();
  readonly reattaching: boolean[] = [];
  text = "";
  onBytes(bytes: Uint8Array): boolean {
    this.text += this.decoder.decode(bytes, { stream: true });
    return this.text.endsWith("[DONE]");
  }
  onReattaching(reattaching: boolean): void {
    this.reattaching.push(reattaching);
  }
}

const rest: Serve = (path) => {
  const offset = Number(new URL(path, "http://home").searchParams.get("offset"));
  return body(BYTES.subarray(offset), "ends");
};

async function run(
  made: ExchangeWorld,
  reader = new Reader(),
): Promise<{ outcome: Outcome; reader: Reader }> {
  const exchange = new Exchange(reader, new AbortController().signal, made, "0123456789abcdef");
  return { outcome: await exchange.run("/v1/chat/completions", { model: "m" }), reader };
}

describe("Exchange", () => {
  it("sends its id and the field against forgery", async () => {
    let sent: RequestInit = {};
    await run(
      world((_, init) => {
        sent = init;
        return body(BYTES, "ends");
      }),
    );
    expect(sent.method).toBe("POST");
    expect(sent.headers).toMatchObject({ "C2L-Request": "1", "c2l-exchange-id": "0123456789abcdef" });
  });

  it("is complete without asking twice", async () => {
    const made = world(() => body(BYTES, "ends"));
    const { outcome, reader } = await run(made);
    expect(outcome).toEqual({ kind: "complete" });
    expect(reader.text).toBe(BODY);
    expect(made.asked).toEqual(["/v1/chat/completions"]);
    expect(reader.reattaching).toEqual([]);
  });

  it.each(Array.from(BYTES.keys()))("continues byte for byte after a break at byte %i", async (at) => {
    const made = world(() => body(BYTES.subarray(0, at), "breaks"), rest);
    const { outcome, reader } = await run(made);
    expect(outcome).toEqual({ kind: "complete" });
    expect(reader.text).toBe(BODY);
    expect(made.asked[1]).toBe(`/c2l/exchanges/0123456789abcdef?offset=${at}`);
    expect(reader.reattaching.at(0)).toBe(true);
    expect(reader.reattaching.at(-1)).toBe(false);
  });

  it("survives many breaks, and passing problems between", async () => {
    let length = 0;
    const piecemeal: Serve = (path) => {
      const offset = Number(new URL(path, "http://home").searchParams.get("offset"));
      expect(offset).toBe(length);
      length = offset + 2;
      return offset + 2 < BYTES.length
        ? body(BYTES.subarray(offset, length), "breaks")
        : body(BYTES.subarray(offset), "ends");
    };
    let turn = 0;
    const made = world((path, init) => {
      turn += 1;
      if (turn % 3 === 2) return problem("bridge-offline", 503);
      return turn % 3 === 0 ? undefined : piecemeal(path, init);
    });
    const { outcome, reader } = await run(made);
    expect(outcome).toEqual({ kind: "complete" });
    expect(reader.text).toBe(BODY);
  });

  it("is failed, and not asked for again, when the request is refused", async () => {
    const made = world(() => problem("engine-unreachable", 502));
    const { outcome } = await run(made);
    expect(outcome).toMatchObject({
      kind: "failed",
      problem: { slug: "engine-unreachable", detail: "Because." },
    });
    expect(made.asked).toHaveLength(1);
  });

  it("is cut short when the rest is gone", async () => {
    const { outcome, reader } = await run(
      world(
        () => body(BYTES.subarray(0, 10), "breaks"),
        () => problem("not-found", 404),
      ),
    );
    expect(outcome).toMatchObject({ kind: "cut-short", problem: { slug: "not-found" } });
    // The tenth byte stands within the llama.
    expect(reader.text).toBe("Hällo ");
  });

  it("is cut short when the body ends cleanly without its mark", async () => {
    const { outcome } = await run(
      world(
        () => body(BYTES.subarray(0, 10), "ends"),
        () => body(new Uint8Array(), "ends"),
      ),
    );
    expect(outcome).toMatchObject({ kind: "cut-short", problem: { title: "The answer ended early" } });
  });

  it("is cut short when home broke the answer off", async () => {
    const made = world(
      () => body(BYTES.subarray(0, 10), "breaks"),
      () => body(new Uint8Array(), "breaks"),
    );
    const { outcome } = await run(made);
    expect(outcome).toMatchObject({
      kind: "cut-short",
      problem: { title: "The answer was broken off at home" },
    });
    expect(made.asked).toHaveLength(5);
  });

  it("gives up after a minute without a byte", async () => {
    const made = world(
      () => body(BYTES.subarray(0, 10), "breaks"),
      () => undefined,
    );
    const { outcome } = await run(made);
    expect(outcome).toMatchObject({ kind: "cut-short" });
    expect(made.slept).toBeGreaterThanOrEqual(60_000);
    expect(made.slept).toBeLessThan(65_000);
  });

  it("says that the message did not arrive if home never heard of it", async () => {
    const { outcome } = await run(
      world(
        () => undefined,
        () => problem("not-found", 404),
      ),
    );
    expect(outcome).toMatchObject({ kind: "failed", problem: { title: "Your message did not arrive" } });
  });

  it("is stopped, not broken, when the person stops it", async () => {
    const abort = new AbortController();
    const reader = new Reader();
    const made = world(() => {
      abort.abort();
      return undefined;
    });
    const outcome = await new Exchange(reader, abort.signal, made).run("/v1/chat/completions", {});
    expect(outcome).toEqual({ kind: "stopped" });
    expect(made.asked).toHaveLength(1);
  });

  it("is stopped while it waits to re-attach, and tells home", async () => {
    const abort = new AbortController();
    const made = world(() => body(BYTES.subarray(0, 4), "breaks"));
    const sleep = () => {
      abort.abort();
      return Promise.resolve();
    };
    const exchange = new Exchange(new Reader(), abort.signal, { ...made, sleep });
    expect(await exchange.run("/v1/chat/completions", {})).toEqual({ kind: "stopped" });
    // No connection is left whose closing would tell.
    expect(made.asked).toEqual(["/v1/chat/completions", `/c2l/exchanges/${exchange.id}`]);
  });

  it("makes ids that the header accepts, each its own", () => {
    const ids = Array.from({ length: 50 }, () => new Exchange(new Reader(), new AbortController().signal).id);
    expect(new Set(ids).size).toBe(50);
    for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9_-]{16,64}$/);
  });
});
