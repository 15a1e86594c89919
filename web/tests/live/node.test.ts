/**
 * The page's client in Node, whose WebCrypto is another one than Chromium's and Python's, against a running platform.
 * `tests/e2e/test_e2e_sealed_node.py` starts both.
 */
import { expect, it } from "vitest";
import { sleep } from "@/net/backoff";
import { pairByLink } from "@/net/home/pairing";
import { contentOf } from "@/net/home/problems";
import { SealedTransport } from "@/net/home/sealed";
import { type HomeRequest, newExchange } from "@/net/home/transport";
import type { HomeWorld } from "@/net/home/world";
import { utf8 } from "@/protocol/sealed/bytes";
import { createDevice } from "@/protocol/sealed/device";
import { readLink } from "@/protocol/sealed/pairing";
import { Memory } from "../support/sealed-home";

interface Live {
  readonly url: string;
  /** What the cloud wants to see of who asks. */
  readonly headers: Record<string, string>;
  /** Fragment of a pairing link. */
  readonly link: string;
  readonly name: string;
}

const given = process.env["C2L_LIVE"];
const never = new AbortController().signal;

/** Reaches the platform; the next answer after `cut` was set breaks off behind so many bytes. */
class LiveWorld implements HomeWorld {
  cut: number | null = null;

  constructor(readonly live: Live) {}

  readonly fetch = async (path: string, init: RequestInit): Promise<Response> => {
    const headers = { ...(init.headers as Record<string, string>), ...this.live.headers };
    const response = await fetch(this.live.url + path, { ...init, headers });
    if (this.cut === null || init.method !== "POST" || response.body === null) return response;
    let left = this.cut;
    this.cut = null;
    const cutting = new TransformStream<Uint8Array, Uint8Array>({
      transform(bytes, controller) {
        left -= bytes.length;
        if (left < 0) controller.error(new Error("cut"));
        else controller.enqueue(bytes);
      },
    });
    return new Response(response.body.pipeThrough(cutting), response);
  };
  readonly sleep = sleep;
  readonly now = () => performance.now();
  readonly date = () => Date.now();
  readonly random = Math.random;
  readonly onWake = () => () => {};
}

it.runIf(given)(
  "pairs, chats, takes an answer up again where it broke, and is refused as somebody else",
  async () => {
    const live = JSON.parse(given ?? "") as Live;
    const world = new LiveWorld(live);
    const link = readLink(live.link);
    const device = await createDevice();
    const memory = new Memory();
    const paired = await pairByLink(link, { device, name: live.name }, 0, world);
    expect(paired.state).toBe("paired");
    await memory.accept(paired.seq);
    const home = new SealedTransport({ ...link, device }, memory, world);

    const models = await home.fetch({ method: "GET", path: "/v1/models" }, never);
    const [model] = JSON.parse(new TextDecoder().decode(await contentOf(models))).data;
    expect(await models.whole).toBe(true);

    const breaks: boolean[] = [];
    const chat: HomeRequest = {
      method: "POST",
      path: "/v1/chat/completions",
      headers: { "content-type": "application/json" },
      content: utf8(
        JSON.stringify({
          model: model.id,
          stream: true,
          messages: [{ role: "user", content: "Zähl bis 🖐" }],
        }),
      ),
      exchange: newExchange(),
      onReattaching: (reattaching) => breaks.push(reattaching),
    };
    world.cut = 9_000; // behind the head and the first content
    const answer = await home.fetch(chat, never);
    const text = new TextDecoder().decode(await contentOf(answer));
    expect(await answer.whole).toBe(true);
    expect(breaks).toEqual([true, false]);
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    const again = await home.fetch({ ...chat, onReattaching: () => {} }, never);
    expect(new TextDecoder().decode(await contentOf(again))).toBe(text);

    const stranger = new SealedTransport({ ...link, device: await createDevice() }, new Memory(), world);
    await expect(stranger.fetch({ method: "GET", path: "/v1/models" }, never)).rejects.toMatchObject({
      problem: { slug: "device-unknown" },
    });
  },
  60_000,
);
