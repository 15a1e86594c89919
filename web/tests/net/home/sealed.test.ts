import { describe, expect, it } from "vitest";
import { contentOf, refusalOf } from "@/net/home/problems";
import { SealedTransport } from "@/net/home/sealed";
import { newExchange } from "@/net/home/transport";
import { ProblemError } from "@/net/problem";
import { type Bytes, utf8 } from "@/protocol/sealed/bytes";
import {
  inTheClear,
  Memory,
  newIdentity,
  pairedWith,
  problemAnswer,
  SmallCloud,
  SmallHome,
} from "../../support/sealed-home";

const TEXT = "Hällo 🦙, this is the whole answer, long enough for some chunks.";
const NEVER = new AbortController().signal;

async function setUp() {
  const home = await SmallHome.create();
  home.answer = () => ({ status: 200, fields: [["content-type", "text/plain"]], content: utf8(TEXT) });
  const cloud = new SmallCloud(home);
  const memory = new Memory();
  const identity = await pairedWith(home);
  const transport = new SealedTransport(identity, memory, cloud);
  return { home, cloud, memory, identity, transport };
}

const chat = () => ({
  method: "POST",
  path: "/v1/chat/completions?x=1",
  headers: { "content-type": "application/json" },
  content: utf8('{"q":1}'),
  exchange: newExchange(),
});

async function problemOf(work: Promise<unknown>) {
  const error = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ProblemError);
  return (error as ProblemError).problem;
}

const text = async (bytes: Promise<Uint8Array>) => new TextDecoder().decode(await bytes);

describe("a sealed request", () => {
  it("arrives as it was meant, and the answer comes back whole", async () => {
    const { home, transport, memory, cloud, identity } = await setUp();
    const response = await transport.fetch(chat(), NEVER);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain");
    expect(await text(contentOf(response))).toBe(TEXT);
    expect(await response.whole).toBe(true);
    expect(home.asked).toMatchObject([
      { method: "POST", path: "/v1/chat/completions?x=1", content: '{"q":1}', offset: 0 },
    ]);
    expect(home.asked[0]?.fields).toContainEqual(["c2l-device", identity.device.id]);
    expect(memory.seq).toBe(home.seq);
    // Nothing of it is in what the cloud saw.
    const seen = cloud.requests.map(({ path, body }) => path + new TextDecoder("latin1").decode(body)).join();
    expect(seen).not.toMatch(/completions|"q"|json/);
  });

  it("fetches the statement once for many requests", async () => {
    const { transport, cloud } = await setUp();
    for (let count = 0; count < 3; count += 1) await contentOf(await transport.fetch(chat(), NEVER));
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET", "POST", "POST", "POST"]);
  });

  it("asks once more when the machine has new keys", async () => {
    const { home, transport, cloud } = await setUp();
    await contentOf(await transport.fetch(chat(), NEVER));
    await home.rotate(9);
    expect(await text(contentOf(await transport.fetch(chat(), NEVER)))).toBe(TEXT);
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET", "POST", "POST", "GET", "POST"]);
    expect(home.begun).toBe(2);
  });

  it("asks once more only", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = ({ method }) =>
      method === "POST"
        ? inTheClear("x", 400, "https://iana.org/assignments/http-problem-types#ohttp-key")
        : undefined;
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "ohttp-key" });
    expect(cloud.requests).toHaveLength(4);
  });

  it("asks once more when new keys have the old ones' id, so that it was taken for damaged", async () => {
    const { home, transport, cloud } = await setUp();
    await contentOf(await transport.fetch(chat(), NEVER));
    await home.rotate(7);
    expect(await text(contentOf(await transport.fetch(chat(), NEVER)))).toBe(TEXT);
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET", "POST", "POST", "GET", "POST"]);
    expect(home.begun).toBe(2);
  });

  it("is refused for good when it is called damaged under the present keys", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = ({ method }) => (method === "POST" ? inTheClear("bad-request", 400) : undefined);
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "bad-request" });
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET", "POST", "GET"]);
  });

  it("asks once more only, also when new keys are called wrong each time", async () => {
    const { home, transport, cloud } = await setUp();
    await contentOf(await transport.fetch(chat(), NEVER));
    await home.rotate(9);
    cloud.interfere = ({ method }) => (method === "POST" ? inTheClear("bad-request", 400) : undefined);
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "bad-request" });
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET", "POST", "POST", "GET", "POST"]);
    expect(home.begun).toBe(1);
  });

  it("hands a refusal of the home on as an answer", async () => {
    const { home, transport } = await setUp();
    for (const answer of [problemAnswer("conflict", 409), problemAnswer("unauthenticated", 401)]) {
      home.answer = () => answer;
      const response = await transport.fetch({ method: "GET", path: "/c2l/home" }, NEVER);
      expect(response.status).toBe(answer.status);
      expect(await refusalOf(response)).toMatchObject({ status: answer.status, detail: "Because." });
    }
  });

  it("tells a refusal of the cloud as it is", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = () => inTheClear("bridge-offline", 503);
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "bridge-offline" });
  });

  it("is not answered by a page that something between sends", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = () => new Response("<html>", { headers: { "content-type": "text/html" } });
    expect((await problemOf(transport.fetch(chat(), NEVER))).title).toMatch(/Something between/);
  });
});

describe("what is pinned", () => {
  it("refuses another identity before anything is sent, and says so until the right one answers", async () => {
    const { home, transport, memory, cloud } = await setUp();
    const own = home.identity;
    home.identity = await newIdentity();
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "home-other-identity" });
    expect(cloud.requests.map(({ method }) => method)).toEqual(["GET"]);
    expect(memory.troubles).toEqual(["other-identity"]);
    home.identity = own;
    await contentOf(await transport.fetch(chat(), NEVER));
    expect(memory.troubles).toEqual(["other-identity", null]);
  });

  it("refuses another bridge's statement, and one whose signature does not hold", async () => {
    const { home, transport, memory, cloud } = await setUp();
    cloud.statement = () => home.statement({ bridgeId: "br_other" });
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "home-untrusted" });
    cloud.statement = async () => {
      const [header, , signature] = (await home.statement()).split(".");
      const [, claims] = (await home.statement({ seq: 99 })).split(".");
      return [header, claims, signature].join(".");
    };
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "home-untrusted" });
    expect(memory.seq).toBe(0);
    expect(memory.troubles).toEqual([]);
  });

  it("refuses keys that are older than some that were accepted, also by a former page", async () => {
    const { home, transport, memory, cloud } = await setUp();
    memory.seq = home.seq + 1;
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "home-old-keys" });
    expect(cloud.requests).toHaveLength(1);
  });

  it("tells of clocks that differ", async () => {
    const { transport, cloud } = await setUp();
    cloud.skew = -200;
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "home-clock" });
  });
});

describe("a removed device", () => {
  it("is believed when it is said sealed", async () => {
    const { home, transport, memory } = await setUp();
    home.devices.clear();
    expect(await problemOf(transport.fetch(chat(), NEVER))).toMatchObject({ slug: "device-unknown" });
    expect(memory.troubles).toEqual(["removed"]);
  });

  it("is not believed when the cloud says it", async () => {
    const { transport, memory, cloud } = await setUp();
    cloud.interfere = () => inTheClear("device-unknown", 401);
    await problemOf(transport.fetch(chat(), NEVER));
    expect(memory.troubles).toEqual([]);
  });
});

describe("an answer that breaks off", () => {
  it("is continued byte for byte after a cut at every chunk", async () => {
    const { transport, cloud, home } = await setUp();
    for (let cut = 0, all = 9; cut < all; cut += 1) {
      const begun = home.begun;
      let posts = 0;
      cloud.interfere = ({ method }) => {
        if (method !== "POST") return undefined;
        posts += 1;
        if (posts > 1) return undefined;
        return (chunks) => {
          all = chunks.length;
          return chunks.slice(0, cut);
        };
      };
      const told: boolean[] = [];
      const response = await transport.fetch({ ...chat(), onReattaching: (is) => told.push(is) }, NEVER);
      expect(await text(contentOf(response))).toBe(TEXT);
      expect(await response.whole).toBe(true);
      expect(home.begun).toBe(begun + 1);
      expect(all).toBeGreaterThan(4);
      if (cut < all) expect(told.slice(-2)).toEqual([true, false]);
    }
  });

  it("is continued after any cut within a chunk, and never repeats a byte", async () => {
    const { transport, cloud } = await setUp();
    for (const at of [1, 20, 45, 90, 131, 190]) {
      let posts = 0;
      cloud.interfere = ({ method }) => {
        if (method !== "POST") return undefined;
        posts += 1;
        return posts < 3 ? (chunks) => cutAt(chunks, at) : undefined;
      };
      expect(await text(contentOf(await transport.fetch(chat(), NEVER)))).toBe(TEXT);
    }
  });

  it("sends the question again only as long as nothing was heard", async () => {
    const { transport, cloud, home } = await setUp();
    cloud.interfere = ({ method, nth }) =>
      method === "POST" && nth === 1
        ? (chunks) => chunks.slice(0, 1)
        : method === "POST" && nth === 2
          ? (chunks) => chunks.slice(0, 4)
          : undefined;
    await contentOf(await transport.fetch(chat(), NEVER));
    expect(home.asked.map(({ content }) => content)).toEqual(['{"q":1}', '{"q":1}', ""]);
    expect(home.asked[2]?.offset).toBeGreaterThan(0);
    expect(home.begun).toBe(1);
  });

  it("without a name is an error, and never an end", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = ({ method }) => (method === "POST" ? (chunks) => chunks.slice(0, -1) : undefined);
    const response = await transport.fetch({ method: "GET", path: "/c2l/export" }, NEVER);
    expect((await problemOf(contentOf(response))).title).toBe("The connection broke");
    expect(await response.whole).toBe(false);
  });

  it("is over when the home does not keep it any more", async () => {
    const { transport, cloud, home } = await setUp();
    cloud.interfere = ({ nth, method }) =>
      method === "POST" && nth === 1
        ? (chunks) => {
            home.forgetAnswers();
            return chunks.slice(0, 4);
          }
        : undefined;
    const response = await transport.fetch(chat(), NEVER);
    expect(await problemOf(contentOf(response))).toMatchObject({ slug: "exchange-unknown" });
    expect(await response.whole).toBe(false);
    expect(home.begun).toBe(1);
  });

  it("goes on through restarts, other keys and a cloud that is away", async () => {
    const { transport, cloud, home } = await setUp();
    let posts = 0;
    cloud.interfere = ({ method }) => {
      if (method !== "POST") return undefined;
      posts += 1;
      if (posts === 1) return (chunks) => chunks.slice(0, 4);
      if (posts === 2) return new TypeError("Failed to fetch");
      if (posts === 3) return inTheClear("bridge-offline", 503);
      return undefined;
    };
    const response = await transport.fetch(chat(), NEVER);
    await home.rotate(11);
    expect(await text(contentOf(response))).toBe(TEXT);
  });

  it("is given up after ten minutes of trying", async () => {
    const { transport, cloud } = await setUp();
    cloud.interfere = ({ method, nth }) =>
      method !== "POST"
        ? undefined
        : nth === 1
          ? (chunks) => chunks.slice(0, 4)
          : new TypeError("no network");
    const response = await transport.fetch(chat(), NEVER);
    expect((await problemOf(contentOf(response))).title).toBe("The connection broke");
    expect(cloud.slept).toBeGreaterThan(590_000);
    expect(cloud.slept).toBeLessThan(620_000);
  });
});

describe("a home that was killed", () => {
  const short = () => ({ method: "GET", path: "/c2l/home" });

  it("is asked anew at once for what was begun before, once another request learns of it", async () => {
    const { home, cloud, transport } = await setUp();
    cloud.interfere = ({ method, nth }) =>
      method === "POST" && nth === 1 ? (chunks) => held(chunks, 4).response : undefined;
    const request = chat();
    const whole = transport.fetch(request, NEVER).then((response) => text(contentOf(response)));
    await until(() => home.begun === 1);
    await home.rotate(9);
    await contentOf(await transport.fetch(short(), NEVER));
    // Without that, the silence would be waited for.
    expect(await whole).toBe(TEXT);
    expect(home.asked.filter(({ path }) => path === request.path).map(({ offset }) => offset > 0)).toEqual([
      false,
      true,
    ]);
    expect(cloud.slept).toBeLessThan(1_000);
  });

  it("ends at once what cannot be asked for again", async () => {
    const { home, cloud, transport } = await setUp();
    cloud.interfere = ({ method, nth }) =>
      method === "POST" && nth === 1 ? (chunks) => held(chunks, 4).response : undefined;
    const response = await transport.fetch(short(), NEVER);
    const failed = problemOf(contentOf(response));
    await home.rotate(9);
    await contentOf(await transport.fetch(short(), NEVER));
    expect((await failed).title).toBe("The connection broke");
    expect(await response.whole).toBe(false);
  });

  it("breaks nothing off that was asked under its present keys, by however many who learn of them", async () => {
    const { home, cloud, transport } = await setUp();
    await contentOf(await transport.fetch(short(), NEVER));
    await home.rotate(9);
    const gates: (() => void)[] = [];
    cloud.statement = async () => {
      await new Promise<void>((resolve) => gates.push(resolve));
      return await home.statement();
    };
    let first: ReturnType<typeof held> | undefined;
    cloud.interfere = ({ method }) => {
      if (method !== "POST" || gates.length < 2 || first !== undefined) return undefined;
      return (chunks) => {
        first = held(chunks, 4);
        return first.response;
      };
    };
    const one = transport.fetch(short(), NEVER).then((response) => text(contentOf(response)));
    const other = transport.fetch(short(), NEVER).then((response) => text(contentOf(response)));
    await until(() => gates.length === 2);
    gates[0]?.();
    await until(() => first !== undefined);
    gates[1]?.();
    expect(await Promise.race([one, other])).toBe(TEXT);
    first?.letGo();
    expect(await Promise.all([one, other])).toEqual([TEXT, TEXT]);
  });

  it("is not gone because the cloud says so: what it answers goes on", async () => {
    const { cloud, transport } = await setUp();
    let first: ReturnType<typeof held> | undefined;
    cloud.interfere = ({ method, nth }) => {
      if (method !== "POST") return undefined;
      if (nth === 2) return inTheClear("x", 400, "https://iana.org/assignments/http-problem-types#ohttp-key");
      return (chunks) => {
        if (nth !== 1) return chunks;
        first = held(chunks, 4);
        return first.response;
      };
    };
    const whole = transport.fetch(short(), NEVER).then((response) => text(contentOf(response)));
    await until(() => first !== undefined);
    await contentOf(await transport.fetch(short(), NEVER));
    first?.letGo();
    expect(await whole).toBe(TEXT);
  });

  it("does not go back to an older statement that comes late", async () => {
    const { home, cloud, transport, memory } = await setUp();
    const old = await home.statement();
    await home.rotate(9);
    let late: () => void = () => {};
    let fetched = 0;
    cloud.statement = async () => {
      fetched += 1;
      if (fetched > 1) return await home.statement();
      await new Promise<void>((resolve) => {
        late = resolve;
      });
      return old;
    };
    // It looks for what was accepted before the newer one is.
    memory.highest = async () => 0;
    const one = transport.fetch(short(), NEVER).then((response) => text(contentOf(response)));
    await until(() => fetched === 1);
    expect(await text(contentOf(await transport.fetch(short(), NEVER)))).toBe(TEXT);
    late();
    expect(await one).toBe(TEXT);
    expect(fetched).toBe(2);
  });
});

describe("a cloud that changes what passes", () => {
  const attacks: Record<string, (chunks: Bytes[]) => Bytes[]> = {
    "flips a bit": (chunks) => chunks.map((chunk, index) => (index === 3 ? flipped(chunk) : chunk)),
    "swaps two chunks": (chunks) => swapped(chunks, 3, 4),
    "leaves a chunk out": (chunks) => chunks.filter((_, index) => index !== 3),
    "repeats a chunk": (chunks) => [...chunks.slice(0, 4), ...chunks.slice(3)],
    "cuts the final chunk off": (chunks) => chunks.slice(0, -1),
  };

  it.each(Object.keys(attacks))("and %s gets no wrong and no short answer through", async (name) => {
    const { transport, cloud } = await setUp();
    const attack = attacks[name];
    cloud.interfere = ({ method }) => (method === "POST" ? attack : undefined);
    const response = await transport.fetch(chat(), NEVER);
    const parts: string[] = [];
    const decoder = new TextDecoder();
    const reader = response.content.getReader();
    const problem = await problemOf(
      (async () => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          parts.push(decoder.decode(value, { stream: true }));
        }
      })(),
    );
    expect(problem.title).toMatch(/altered on its way|broken off at home/);
    expect(TEXT.startsWith(parts.join(""))).toBe(true);
    expect(await response.whole).toBe(false);
  });

  it("only once is noticed, and the answer comes all the same", async () => {
    for (const attack of Object.values(attacks)) {
      const { transport, cloud } = await setUp();
      cloud.interfere = ({ method, nth }) => (method === "POST" && nth === 1 ? attack : undefined);
      expect(await text(contentOf(await transport.fetch(chat(), NEVER)))).toBe(TEXT);
    }
  });

  it("cannot answer with the answer to something else", async () => {
    const { transport, cloud } = await setUp();
    let former: Bytes[] = [];
    cloud.interfere = () => (chunks) => {
      former = chunks;
      return chunks;
    };
    await contentOf(await transport.fetch(chat(), NEVER));
    const replayed = former;
    cloud.interfere = ({ method }) => (method === "POST" ? () => replayed : undefined);
    const problem = await problemOf(transport.fetch({ method: "GET", path: "/c2l/home" }, NEVER));
    expect(problem.slug).toBe("home-altered");
  });
});

describe("leaving", () => {
  it("ends the connection, and starts and stops nothing", async () => {
    const { transport, home } = await setUp();
    const leaving = new AbortController();
    const response = await transport.fetch(chat(), leaving.signal);
    leaving.abort(new DOMException("left", "AbortError"));
    await expect(contentOf(response)).rejects.toThrow("left");
    expect(await response.whole).toBe(false);
    expect(home.asked).toHaveLength(1);
  });

  it("before the answer rejects as the signal does", async () => {
    const { transport } = await setUp();
    await expect(transport.fetch(chat(), AbortSignal.abort("gone"))).rejects.toBe("gone");
  });
});

/** An answer that says nothing more after some chunks, until it is let go on. */
function held(chunks: readonly Bytes[], after: number) {
  let letGo: () => void = () => {};
  const go = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let at = 0;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (at === after) await go;
      const chunk = chunks[at];
      at += 1;
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  });
  const response = new Response(body, { headers: { "content-type": "message/ohttp-chunked-res" } });
  return { response, letGo };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}

function flipped(chunk: Bytes): Bytes {
  const copy = chunk.slice();
  copy[copy.length - 1] = (copy.at(-1) ?? 0) ^ 1;
  return copy;
}

function swapped(chunks: readonly Bytes[], one: number, other: number): Bytes[] {
  const copy = [...chunks];
  [copy[one], copy[other]] = [chunks[other] as Bytes, chunks[one] as Bytes];
  return copy;
}

function cutAt(chunks: readonly Bytes[], at: number): Bytes[] {
  const whole = new Uint8Array(chunks.flatMap((chunk) => [...chunk]));
  return [whole.slice(0, at)];
}
