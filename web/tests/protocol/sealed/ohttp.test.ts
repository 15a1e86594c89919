import { describe, expect, it } from "vitest";
import { type Bytes, concat } from "@/protocol/sealed/bytes";
import { ChunkSplitter } from "@/protocol/sealed/chunks";
import { RequestOpener, type ResponseSealer } from "@/protocol/sealed/gateway";
import { decodeConfigs, encodeConfigs, type KeyConfig } from "@/protocol/sealed/key-config";
import { MAX_CHUNK } from "@/protocol/sealed/limits";
import { RequestSealer, type ResponseOpener } from "@/protocol/sealed/ohttp";
import { sharedSecret } from "@/protocol/sealed/pairing";
import { chunkings } from "../../support/chunkings";
import { bytewise, expectRefused, flipped, hex, pairOf, publicBytes, readAll, suiteWith } from "./parts";

const pair = await pairOf(new Uint8Array(32).fill(7));
const config: KeyConfig = { keyId: 3, publicKey: await publicBytes(pair) };
const suite = await suiteWith(new Uint8Array(32).fill(9));
const nonce = new Uint8Array(16).fill(5);
const plain = ["first", "", "third", "last"].map((text) => new TextEncoder().encode(text));

const opener = () => new RequestOpener((keyId) => (keyId === config.keyId ? pair : undefined));
const joined = (parts: readonly Uint8Array[]) => new TextDecoder().decode(concat(...parts));

async function requestParts(): Promise<Bytes[]> {
  const client = await RequestSealer.create(config, { suite });
  const parts = [client.header];
  for (const chunk of plain.slice(0, -1)) parts.push(await client.seal(chunk));
  return [...parts, await client.sealFinal(plain.at(-1))];
}

async function sides(): Promise<{ bridge: ResponseSealer; client: ResponseOpener }> {
  const client = await RequestSealer.create(config, { suite });
  const request = opener();
  await readAll(request, [await client.sealAll(new Uint8Array())]);
  return { bridge: await request.response(nonce), client: await client.response() };
}

async function responseParts(): Promise<Bytes[]> {
  const { bridge } = await sides();
  const parts = [bridge.header];
  for (const chunk of plain.slice(0, -1)) parts.push(await bridge.seal(chunk));
  return [...parts, await bridge.sealFinal(plain.at(-1))];
}

const response = await responseParts();
const request = await requestParts();

describe("a response", () => {
  it.each(chunkings(concat(...response)))("is opened in $name", async ({ chunks }) => {
    expect(joined(await readAll((await sides()).client, chunks))).toBe("firstthirdlast");
  });

  it("shows any bit that was changed", async () => {
    const whole = concat(...response);
    for (let at = 0; at < whole.length; at += 1) {
      const { client } = await sides();
      await expectRefused(() => readAll(client, [flipped(whole, at, at % 8)]));
    }
  });

  it("shows where it was cut off", async () => {
    const whole = concat(...response);
    for (let size = 0; size < whole.length; size += 1) {
      const { client } = await sides();
      await expectRefused(() => readAll(client, [whole.subarray(0, size)]), "truncated", "forged");
    }
    for (let size = 0; size < response.length; size += 1) {
      const { client } = await sides();
      await expectRefused(() => readAll(client, response.slice(0, size)), "truncated");
    }
  });

  it.each([[[2, 1, 3, 4]], [[1, 1, 2, 3, 4]], [[1, 3, 4]], [[4]], [[1, 2, 3, 4, 4]]])(
    "shows chunks that were moved, repeated or left out: %s",
    async (order) => {
      const { client } = await sides();
      const parts = [0, ...order].map((index) => response[index] ?? new Uint8Array());
      await expectRefused(() => readAll(client, parts), "forged");
    },
  );

  it("cannot be ended early with a chunk from its middle", async () => {
    const { client } = await sides();
    const early = concat(Uint8Array.of(0), (response[1] ?? new Uint8Array()).subarray(1));
    await expectRefused(() => readAll(client, [response[0] ?? early, early]), "forged");
  });

  it("of another request does not open", async () => {
    const { bridge } = await sides();
    const other = await (await RequestSealer.create(config)).response();
    await expectRefused(async () => readAll(other, [await bridge.sealAll(new Uint8Array(5))]), "forged");
  });

  it("says nothing more after an error, and takes no two calls at once", async () => {
    const { client } = await sides();
    await expectRefused(() => client.receive(concat(nonce, Uint8Array.of(16), new Uint8Array(16))), "forged");
    await expectRefused(() => client.end(), "misuse");
    const { client: other } = await sides();
    const first = other.receive(response[0] ?? nonce);
    await expectRefused(() => other.receive(response[1] ?? nonce), "misuse");
    await first;
  });
});

describe("a request", () => {
  it("is opened from any pieces", async () => {
    const whole = concat(...request);
    for (const pieces of [request, [whole], bytewise(whole)]) {
      expect(joined(await readAll(opener(), pieces))).toBe("firstthirdlast");
    }
  });

  it("shows any bit that was changed, and where it was cut off", async () => {
    const whole = concat(...request);
    for (let at = 0; at < whole.length; at += 3) {
      await expectRefused(() => readAll(opener(), [flipped(whole, at, at % 8)]));
      await expectRefused(() => readAll(opener(), [whole.subarray(0, at)]));
    }
  });

  it("differs each time it is made", async () => {
    const [one, two] = [await RequestSealer.create(config), await RequestSealer.create(config)];
    expect(one.enc).not.toEqual(two.enc);
  });

  it("goes in chunks of 16 KiB", async () => {
    const client = await RequestSealer.create(config);
    const chunks = await readAll(opener(), [await client.sealAll(new Uint8Array(2 * MAX_CHUNK + 5))]);
    expect(chunks.map((chunk) => chunk.length)).toEqual([MAX_CHUNK, MAX_CHUNK, 5]);
    await expectRefused(() => client.seal(new Uint8Array()), "misuse");
    const other = await RequestSealer.create(config);
    await expectRefused(() => other.seal(new Uint8Array(MAX_CHUNK + 1)), "misuse");
  });

  it("of a pairing opens with its secret only", async () => {
    const secret = new Uint8Array(32).fill(1);
    const shared = await sharedSecret(secret);
    const sent = await (await RequestSealer.create(config, { shared })).sealAll(new Uint8Array(60));
    expect(
      await readAll(
        new RequestOpener(
          () => pair,
          () => secret,
        ),
        [sent],
      ),
    ).toHaveLength(1);
    const wrong = new RequestOpener(
      () => pair,
      () => new Uint8Array(32).fill(2),
    );
    await expectRefused(() => readAll(wrong, [sent]), "forged");
    await expectRefused(
      () =>
        readAll(
          new RequestOpener(
            () => pair,
            () => undefined,
          ),
          [sent],
        ),
      "unknown-key",
    );
    await expectRefused(() => readAll(opener(), [sent]));
    const short = { id: shared.id, secret: new Uint8Array(31) };
    await expectRefused(() => RequestSealer.create(config, { shared: short }), "misuse");
  });

  it("is not sealed to a point of low order", async () => {
    await expectRefused(() => RequestSealer.create({ keyId: 1, publicKey: new Uint8Array(32) }), "malformed");
  });
});

it("refuses chunks out of their range at once", async () => {
  for (const length of ["0f", "80004011", "ffffffffffffffff"]) {
    await expectRefused(() => new ChunkSplitter().receive(hex(length)), "malformed");
  }
  await expectRefused(() => new ChunkSplitter().receive(new Uint8Array(MAX_CHUNK + 18)), "malformed");
});

describe("key configurations", () => {
  const listed = (...each: string[]) =>
    hex(each.map((text) => `00${(text.length / 2).toString(16).padStart(2, "0")}${text}`).join(""));
  const good = Buffer.from(encodeConfigs([config]))
    .toString("hex")
    .slice(4);

  it("for other suites are passed over", () => {
    expect(decodeConfigs(listed(`02647a${"00".repeat(40)}`, good))).toEqual([config]);
  });

  it.each([
    ["nothing", hex("")],
    ["part of one", listed(good).slice(0, -1)],
    ["an id twice", listed(good, good)],
    ["a byte more", listed(`${good}00`)],
    ["no algorithms", listed(`010020${"00".repeat(32)}0000`)],
    ["another suite only", listed(`02647a${"00".repeat(40)}`)],
  ])("that are %s are refused", async (_, data) => {
    await expectRefused(() => decodeConfigs(data), "malformed");
  });
});
