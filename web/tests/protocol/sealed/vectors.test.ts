import { describe, expect, it } from "vitest";
import { encodeMessage, type Message } from "@/protocol/sealed/bhttp";
import { decodeMessage } from "@/protocol/sealed/bhttp-decoder";
import { concat, utf8 } from "@/protocol/sealed/bytes";
import { RequestOpener } from "@/protocol/sealed/gateway";
import { recipient, sender } from "@/protocol/sealed/hpke";
import { configHeader, decodeConfigs } from "@/protocol/sealed/key-config";
import { RequestSealer } from "@/protocol/sealed/ohttp";
import { ResponseKey } from "@/protocol/sealed/response-key";
import { hex, pairOf, readAll, suiteWith, toHex, type Vector, vectors } from "./parts";

describe("RFC 9292", () => {
  it.each(vectors("sealed/rfc9292.json").vectors as Vector[])("$name", (vector) => {
    const { kind, status, fields, informational, content, trailers, ...control } = vector.message;
    const message = {
      head: kind === "request" ? { type: kind, ...control, fields } : { type: kind, status, fields },
      content: hex(content),
      trailers,
      informational: informational.map((head: object) => ({ type: "informational", ...head })),
    } as Message;
    expect(decodeMessage(hex(vector.hex), kind)).toEqual(message);
    expect(toHex(encodeMessage(message, vector))).toBe(vector.hex);
  });
});

describe("RFC 9180", () => {
  it.each(vectors("sealed/rfc9180.json").vectors as Vector[])("mode $mode", async (vector) => {
    const psk = vector.psk && { psk: hex(vector.psk), pskId: hex(vector.psk_id) };
    const info = hex(vector.info);
    const sending = await sender(hex(vector.pkRm), info, psk, await suiteWith(hex(vector.skEm)));
    expect(toHex(sending.enc)).toBe(vector.enc);
    const receiving = await recipient(sending.enc, await pairOf(hex(vector.skRm)), info, psk);
    for (const { aad, ct, pt } of vector.encryptions) {
      expect(toHex(await sending.context.Seal(hex(pt), hex(aad)))).toBe(ct);
      expect(toHex(await receiving.Open(hex(ct), hex(aad)))).toBe(pt);
    }
    for (const { exporter_context: context, L, exported_value: value } of vector.exports) {
      expect(toHex(await sending.context.Export(hex(context), L))).toBe(value);
      expect(toHex(await receiving.Export(hex(context), L))).toBe(value);
    }
  });
});

it("RFC 9458: the form in one piece, whose keys are derived as those of chunks are", async () => {
  const vector = vectors("sealed/rfc9458.json");
  const [config] = decodeConfigs(
    concat(Uint8Array.of(0, vector.keyConfig.length / 2), hex(vector.keyConfig)),
  );
  const { enc, context } = await sender(
    config.publicKey,
    hex(vector.info),
    undefined,
    await suiteWith(hex(vector.skE)),
  );
  const sealed = await context.Seal(hex(vector.request));
  expect(toHex(concat(configHeader(config), enc, sealed))).toBe(vector.encapsulatedRequest);
  const secret = await context.Export(utf8("message/bhttp response"), 16);
  expect(toHex(secret)).toBe(vector.secret);
  const key = await ResponseKey.derive(enc, concat(secret), hex(vector.responseNonce));
  const opened = await key.open(hex(vector.encapsulatedResponse).slice(16), new Uint8Array());
  expect(toHex(opened)).toBe(vector.response);
});

it("draft-ietf-ohai-chunked-ohttp-08", async () => {
  const vector = vectors("sealed/chunked_ohttp_08.json");
  const [config] = decodeConfigs(
    concat(Uint8Array.of(0, vector.keyConfig.length / 2), hex(vector.keyConfig)),
  );
  const client = await RequestSealer.create(config, { suite: await suiteWith(hex(vector.skE)) });
  const request = hex(vector.request);
  const [at] = vector.requestSplit;
  const parts = [
    client.header,
    await client.seal(request.subarray(0, at)),
    await client.seal(request.subarray(at)),
    await client.sealFinal(),
  ];
  expect(toHex(concat(...parts))).toBe(vector.encapsulatedRequest.join(""));

  const pair = await pairOf(hex(vector.skR));
  const bridge = new RequestOpener(() => pair);
  expect(toHex(concat(...(await readAll(bridge, parts))))).toBe(vector.request);
  const answer = await bridge.response(hex(vector.responseNonce));
  const sent = [
    answer.header,
    await answer.seal(hex(vector.response).subarray(0, 1)),
    await answer.seal(hex(vector.response).subarray(1)),
    await answer.sealFinal(),
  ];
  expect(sent.map(toHex)).toEqual(vector.encapsulatedResponse);
  expect(toHex(concat(...(await readAll(await client.response(), sent))))).toBe(vector.response);
});
