import { describe, expect, it } from "vitest";
import { encodeMessage, message, request } from "@/protocol/sealed/bhttp";
import { BinaryHttpDecoder, decodeMessage, type Kind } from "@/protocol/sealed/bhttp-decoder";
import { ByteQueue, concat, fromBase64Url, latin1, toBase64Url, varint } from "@/protocol/sealed/bytes";
import { single } from "@/protocol/sealed/fields";
import { DEFAULT_LIMITS } from "@/protocol/sealed/limits";
import { PaddingRemover, padme } from "@/protocol/sealed/padding";
import { readLink, writeLink } from "@/protocol/sealed/pairing";
import { readOffset } from "@/protocol/sealed/resume";
import { bytewise, expectRefused, hex, readAll } from "./parts";

const bytes = (text: string) => latin1(text);
const ok = message({ type: "response", status: 200, fields: [["a", "b"]] }, bytes("content"));

describe("Binary HTTP", () => {
  const bad: [string, Kind][] = [
    ["\x04", "request"],
    ["\x01\x40\xc8", "request"],
    ["\x00\x03GET\x05https\x00\x01/", "response"],
    ["\x00\x03G T\x05https\x00\x01/", "request"],
    ["\x00\x03GET\x05HTTPS\x00\x01/", "request"],
    ["\x00\x03GET\x05https\x03a b\x01/", "request"],
    ["\x00\x03GET\x05https\x00\x00", "request"],
    ["\x00\x03GET\x05https\x00\x01*", "request"],
    ["\x02\x03GET\x05https\x00\x01/\x01A\x01b\x00", "request"],
    ["\x02\x03GET\x05https\x00\x01/\x05:path\x01/\x00", "request"],
    ["\x02\x03GET\x05https\x00\x01/\x01a\x03x\r\n\x00", "request"],
    ["\x02\x03GET\x05https\x00\x01/\x01a\x02 x\x00", "request"],
    ["\x02\x03GET\x05https\x00\x01/\x02te\x01x\x00", "request"],
    ["\x01\x40\x63", "response"],
    ["\x01\x40\x65\x00\x40\xc8", "response"],
    ["\x01\x42\x58", "response"],
    ["\x01\x40\xc8\x02\x00\x00", "response"],
    ["\x01\x40\xc8\x03\x01a\x05", "response"],
    ["\x01\x40\xc8\x00\x00\x00\x00\x01", "response"],
    ["\x00\xff\xff\xff\xff\xff\xff\xff\xff", "request"],
  ];

  it.each(bad)("refuses %j", async (text, kind) => {
    await expectRefused(() => decodeMessage(bytes(text), kind), "malformed");
    const decoder = new BinaryHttpDecoder(kind);
    await expectRefused(() => readAll(decoder, bytewise(bytes(text))), "malformed");
    await expectRefused(() => decoder.receive(bytes("")), "misuse");
  });

  it("may end only between its parts", async () => {
    for (const streamed of [false, true]) {
      const whole = encodeMessage(ok, { streamed });
      const ends = [];
      for (let size = 0; size <= whole.length; size += 1) {
        try {
          decodeMessage(whole.subarray(0, size), "response");
          ends.push(size);
        } catch {}
      }
      // After the status, the fields, the content and the trailers.
      expect(ends).toEqual(streamed ? [3, 8, 17, 18] : [3, 8, 16, 17]);
    }
  });

  it("keeps its limits", async () => {
    const limits = { ...DEFAULT_LIMITS, control: 8, section: 32, fields: 2, content: 6 };
    const refused = (value: Parameters<typeof encodeMessage>[0], kind: Kind) =>
      Promise.all(
        [false, true].map((streamed) =>
          expectRefused(
            () => new BinaryHttpDecoder(kind, limits).receive(encodeMessage(value, { streamed })),
            "malformed",
          ),
        ),
      );
    await refused(message(request("GET", "/12345678")), "request");
    await refused(message(request("GET", "/", [["a", "x".repeat(40)]])), "request");
    await refused(
      message(
        request("GET", "/", [
          ["a", ""],
          ["b", ""],
          ["c", ""],
        ]),
      ),
      "request",
    );
    await refused(ok, "response");
  });

  it("writes nothing that it would not read", async () => {
    for (const head of [request("G T", "/"), request("GET", "x"), request("GET", "/", [["A", "b"]])]) {
      await expectRefused(() => encodeMessage(message(head)), "malformed");
    }
    await expectRefused(() => encodeMessage(message(request("GET", "/", [["a", "🦙"]]))), "misuse");
    await expectRefused(
      () =>
        single(
          [
            ["a", "1"],
            ["a", "1"],
          ],
          "a",
        ),
      "malformed",
    );
  });
});

describe("bytes", () => {
  it("come out of the queue as they went in", () => {
    const queue = new ByteQueue();
    const all = Uint8Array.from({ length: 5000 }, (_, index) => index * 7);
    const out = [];
    for (let at = 0, size = 1; at < all.length; at += size, size = (size * 3) % 301) {
      queue.push(all.subarray(at, at + size));
      out.push(queue.take(size % 97));
    }
    out.push(queue.take(9999));
    expect(concat(...out)).toEqual(all);
    expect(queue.length).toBe(0);
  });

  it("have lengths of four sizes", () => {
    for (const [value, size] of [
      [0, 1],
      [63, 1],
      [64, 2],
      [16383, 2],
      [16384, 4],
      [2 ** 30 - 1, 4],
      [2 ** 30, 8],
      [2 ** 53 - 1, 8],
    ] as const) {
      const queue = new ByteQueue();
      queue.push(varint(value));
      expect(queue.varint(0)).toEqual([value, size]);
    }
    const queue = new ByteQueue();
    queue.push(hex("c000000000000025"));
    expect(queue.varint(0)).toEqual([37, 8]);
  });

  it.each(["A", "AB", "A=", "AA==", "A+/A", "A\n", "Ä", "AAA A"])("refuses %j as base64url", async (text) => {
    await expectRefused(() => fromBase64Url(text, "it"), "malformed");
  });

  it("have one spelling in base64url", () => {
    for (let size = 0; size < 40; size += 1) {
      const data = Uint8Array.from({ length: size }, (_, index) => index * 83 + size);
      expect(fromBase64Url(toBase64Url(data), "it", size)).toEqual(data);
    }
  });
});

describe("padding", () => {
  it("is removed from any pieces", () => {
    const padded = hex("00020003aabb000000" + "00000001" + "00" + "00010000cc");
    for (const pieces of [[padded], bytewise(padded)]) {
      const remover = new PaddingRemover();
      expect(concat(...pieces.map((piece) => remover.receive(piece)))).toEqual(hex("aabbcc"));
      remover.end();
    }
  });

  it("is refused when it is none or not whole", async () => {
    await expectRefused(() => new PaddingRemover().receive(hex("0000000201")), "malformed");
    const remover = new PaddingRemover();
    remover.receive(hex("00000002"));
    await expectRefused(() => remover.end(), "truncated");
  });

  it("leaves few sizes", () => {
    expect([0, 1, 9, 1000, 1025, 100_000].map(padme)).toEqual([0, 1, 10, 1024, 1088, 100_352]);
  });
});

it("reads whole pairing links only", async () => {
  const link = {
    bridgeId: "home-1_A",
    fingerprint: new Uint8Array(32).fill(1),
    secret: new Uint8Array(32).fill(2),
  };
  const text = writeLink(link);
  expect(readLink(`#${text}`)).toEqual(link);
  for (const wrong of [
    "",
    text.slice(0, -1),
    `${text}A`,
    text.replace("c2l1", "c2l2"),
    text.replace("home", "h me"),
    `${text}.x`,
  ]) {
    await expectRefused(() => readLink(wrong), "malformed");
  }
});

it("reads offsets", async () => {
  expect(readOffset([])).toBe(0);
  expect(readOffset([["c2l-offset", "9007199254740991"]])).toBe(Number.MAX_SAFE_INTEGER);
  for (const wrong of ["", "-1", "01", "1.0", "9007199254740992", "1e3"]) {
    await expectRefused(() => readOffset([["c2l-offset", wrong]]), "malformed");
  }
});
