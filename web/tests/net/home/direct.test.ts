import { expect, it } from "vitest";
import { DirectTransport } from "@/net/home/direct";
import { contentOf } from "@/net/home/problems";
import { newExchange } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { utf8 } from "@/protocol/sealed/bytes";

const WHOLE = utf8("the whole answer");
const NEVER = new AbortController().signal;

/** A bridge on loopback that cuts its first connections after some bytes. */
function bridge(cuts: number[]): { readonly world: HomeWorld; readonly asked: RequestInit[] } {
  const asked: RequestInit[] = [];
  const fetch = async (_: string, init: RequestInit) => {
    asked.push(init);
    const offset = Number(new Headers(init.headers).get("c2l-offset") ?? "0");
    const cut = cuts.shift();
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(WHOLE.slice(offset, cut));
      },
      pull(controller) {
        if (cut === undefined) controller.close();
        else controller.error(new TypeError("cut"));
      },
    });
    return new Response(stream, { headers: { "c2l-offset": `${offset}` } });
  };
  const sleep = async () => {};
  const onWake = () => () => {};
  return { world: { fetch, sleep, now: () => 0, date: () => 0, random: () => 1, onWake }, asked };
}

it("asks the same paths in the open, and takes a broken answer up at its offset", async () => {
  const { world, asked } = bridge([4, 9]);
  const exchange = newExchange();
  const request = { method: "POST", path: "/v1/chat/completions", content: utf8("{}"), exchange };
  const response = await new DirectTransport(world).fetch(request, NEVER);
  expect(await contentOf(response)).toEqual(WHOLE);
  expect(await response.whole).toBe(true);
  const sent = asked.map(({ headers, body }) => [new Headers(headers).get("c2l-offset"), body !== undefined]);
  expect(sent).toEqual([
    [null, true],
    ["4", false],
    ["9", false],
  ]);
  for (const { headers } of asked) {
    expect(new Headers(headers).get("c2l-exchange")).toBe(exchange);
    expect(new Headers(headers).get("c2l-request")).toBe("1");
  }
});

it("is an error when what has no name breaks off", async () => {
  const { world } = bridge([4]);
  const response = await new DirectTransport(world).fetch({ method: "GET", path: "/c2l/home" }, NEVER);
  await expect(contentOf(response)).rejects.toThrow("The connection broke");
  expect(await response.whole).toBe(false);
});
