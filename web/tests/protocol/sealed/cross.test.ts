/** What Python wrote is read here and made again; what is written here, Python's tests read. */
import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { encodeMessage, type Message, message, request } from "@/protocol/sealed/bhttp";
import { collect, decodeMessage } from "@/protocol/sealed/bhttp-decoder";
import { type Bytes, concat } from "@/protocol/sealed/bytes";
import {
  createDevice,
  deviceId,
  fingerprint,
  proofFields,
  proofMessage,
  verify,
} from "@/protocol/sealed/device";
import { ResponseReader, sealRequest } from "@/protocol/sealed/exchange";
import { RequestOpener } from "@/protocol/sealed/gateway";
import { encodeConfigs, type KeyConfig } from "@/protocol/sealed/key-config";
import { RequestSealer } from "@/protocol/sealed/ohttp";
import { requestSize } from "@/protocol/sealed/padding";
import { introduction, readLink, sharedSecret, writeLink } from "@/protocol/sealed/pairing";
import { resumeFields } from "@/protocol/sealed/resume";
import { safetyWords } from "@/protocol/sealed/safety-words";
import { signStatement, verifyStatement } from "@/protocol/sealed/statement";
import {
  bytewise,
  expectRefused,
  folder,
  hex,
  pairOf,
  publicBytes,
  readAll,
  suiteWith,
  toHex,
  type Vector,
  vectors,
} from "./parts";

const python = vectors("sealed/python.json");
const config: KeyConfig = { keyId: python.bridge.keyId, publicKey: hex(python.bridge.public) };
const PKCS8_ED25519 = hex("302e020100300506032b657004220420");

function messageOf(vector: Vector): Message {
  const { head, content, trailers, informational } = vector;
  return { head, content: hex(content), trailers, informational };
}

async function clientOf(vector: Vector): Promise<RequestSealer> {
  const shared = vector.secret ? await sharedSecret(hex(vector.secret)) : undefined;
  return await RequestSealer.create(config, { shared, suite: await suiteWith(hex(vector.ephemeral)) });
}

async function openerOf(vector: Vector): Promise<RequestOpener> {
  const pair = await pairOf(hex(python.bridge.private));
  return new RequestOpener(() => pair, vector.secret ? () => hex(vector.secret) : undefined);
}

describe("Binary HTTP", () => {
  it.each(python.messages as Vector[])("$head.type $head.path$head.status", (vector) => {
    const value = messageOf(vector);
    for (const [form, streamed] of [
      ["known", false],
      ["streamed", true],
    ] as const) {
      expect(toHex(encodeMessage(value, { streamed, padding: 3 }))).toBe(vector[form]);
      expect(decodeMessage(hex(vector[form]), value.head.type as "request" | "response")).toEqual(value);
    }
  });
});

describe("exchanges", () => {
  it.each(python.exchanges as Vector[])("$name", async (vector) => {
    const client = await clientOf(vector);
    const sent = await sealRequest(client, messageOf(vector.message));
    expect(toHex(sent)).toBe(vector.request);
    expect(toHex(await proofMessage(client))).toBe(vector.proofMessage);

    const bridge = await openerOf(vector);
    const opened = await readAll(bridge, [sent]);
    expect(decodeMessage(concat(...opened), "request")).toEqual(messageOf(vector.message));
    expect(toHex(await proofMessage(bridge))).toBe(vector.proofMessage);
    const chunks = (vector.responseChunks as string[]).map(hex);
    const answer = await bridge.response(hex(vector.responseNonce));
    const sealed = [];
    for (const chunk of chunks.slice(0, -1)) sealed.push(await answer.seal(chunk));
    sealed.push(await answer.sealFinal(chunks.at(-1)));
    expect(toHex(concat(answer.header, ...sealed))).toBe(vector.response);
    const found = await readAll(await client.response(), [hex(vector.response)]);
    expect(found.map(toHex)).toEqual(vector.responseChunks);
  });

  it("reads a response as the bridge writes it, in any pieces, and none that was cut off", async () => {
    const vector = python.streamed;
    const client = await clientOf(vector);
    await sealRequest(client, message(request("GET", "/")));
    const parts = (vector.steps as Vector[]).map(({ sends }) => hex(sends));
    for (const pieces of [parts, bytewise(concat(...parts)), [concat(...parts)]]) {
      const reader = new ResponseReader(await client.response());
      const found = collect(await readAll(reader, pieces));
      expect(toHex(found.content as Bytes)).toBe(vector.content);
      expect(found.head.fields).toEqual(vector.fields);
      expect(found.trailers).toEqual(vector.trailers);
      expect(found.informational).toHaveLength(1);
    }
    const cut = new ResponseReader(await client.response());
    await expectRefused(() => readAll(cut, parts.slice(0, -1)), "truncated");
  });
});

it("key configurations and their statement", async () => {
  const { identity, now } = python;
  expect(toHex(encodeConfigs([config]))).toBe(python.configs);
  const expected = { pinned: hex(identity.fingerprint), bridgeId: "home", now, seen: 0 };
  const statement = await verifyStatement(python.statement, expected);
  expect(statement.configs).toEqual([config]);
  const pkcs8 = concat(PKCS8_ED25519, hex(identity.private));
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  expect(await signStatement(statement, hex(identity.public), key)).toBe(python.statement);
});

it("devices: ids, what is signed, signatures", async () => {
  const { device } = python;
  expect(await deviceId(hex(device.point))).toBe(device.id);
  const client = await clientOf(device);
  expect(toHex(await proofMessage(client))).toBe(device.proofMessage);
  expect(await verify(hex(device.point), hex(device.signature), hex(device.signed))).toBe(true);
  const fields = new Map<string, string>(device.proofFields);
  const proof = Uint8Array.from(Buffer.from(fields.get("c2l-proof") ?? "", "base64url"));
  expect(await verify(hex(device.point), proof, hex(device.proofMessage))).toBe(true);
  const ours = await proofFields(
    client,
    { id: device.id, privateKey: (await createDevice()).privateKey },
    new Date(python.now * 1000),
  );
  expect(ours.slice(0, 2)).toEqual(device.proofFields.slice(0, 2));
});

it("pairing, safety words, sizes, resume", async () => {
  const link = readLink(`#${python.pairing.fragment}`);
  expect(writeLink(link)).toBe(python.pairing.fragment);
  expect(toHex(link.fingerprint)).toBe(python.identity.fingerprint);
  expect(toHex((await sharedSecret(link.secret)).id)).toBe(python.pairing.id);
  const body = introduction({ point: hex(python.device.point) }, "Käthe");
  expect(new TextDecoder().decode(body)).toBe(python.introduction);
  const device = await fingerprint(hex(python.device.point));
  expect(await safetyWords(link.fingerprint, device)).toEqual(python.safetyWords);
  expect((python.requestSizes as [number, number][]).map(([size]) => [size, requestSize(size)])).toEqual(
    python.requestSizes,
  );
  const { exchange, offset, fields } = python.resume;
  expect(resumeFields(hex(exchange), offset)).toEqual(fields);
});

/** Vectors with what only WebCrypto makes; written on demand, as they are other ones each time. */
async function ours(): Promise<object> {
  const now = 1_790_000_000;
  const date = new Date(now * 1000);
  const random = (size: number) => crypto.getRandomValues(new Uint8Array(size));
  const [bridgePrivate, ephemeral, secret, nonce] = [random(32), random(32), random(32), random(16)];
  const bridgePair = await pairOf(bridgePrivate);
  const bridge = { keyId: 9, publicKey: await publicBytes(bridgePair) };
  const identity = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  const identityPublic = new Uint8Array(await crypto.subtle.exportKey("raw", identity.publicKey));
  const statement = {
    bridgeId: "home",
    configs: [bridge] as const,
    issued: now,
    expires: now + 3600,
    seq: now,
  };
  const device = await createDevice();

  const client = await RequestSealer.create(bridge, { suite: await suiteWith(ephemeral) });
  const body = new TextEncoder().encode('{"prompt":"Grüße 🦙"}');
  const proof = await proofFields(client, device, date);
  const sent = await sealRequest(client, message(request("POST", "/api/chat", proof), body));
  const opener = new RequestOpener(() => bridgePair);
  await readAll(opener, [sent]);
  const answer = message({ type: "response", status: 200, fields: [["content-type", "text/plain"]] }, body);
  const response = await (await opener.response(nonce)).sealAll(encodeMessage(answer, { streamed: true }));

  const name = "Handy 📱";
  const pairing = await RequestSealer.create(bridge, { shared: await sharedSecret(secret) });
  const pairingProof = await proofFields(pairing, device, date);
  const introduced = message(request("POST", "/c2l/devices", pairingProof), introduction(device, name));
  const pinned = await fingerprint(identityPublic);
  return {
    now,
    bridge: { keyId: bridge.keyId, private: toHex(bridgePrivate) },
    fingerprint: toHex(pinned),
    statement: await signStatement(statement, identityPublic, identity.privateKey),
    point: toHex(device.point),
    ephemeral: toHex(ephemeral),
    request: toHex(sent),
    content: toHex(body),
    response: toHex(response),
    secret: toHex(secret),
    pairing: toHex(await sealRequest(pairing, introduced)),
    name,
  };
}

it("vectors for Python are made as those that it reads; written with C2L_WRITE_VECTORS", async () => {
  const file = "sealed/typescript.json";
  const made = await ours();
  if (process.env["C2L_WRITE_VECTORS"]) writeFileSync(folder + file, `${JSON.stringify(made, null, 1)}\n`);
  expect(Object.keys(made)).toEqual(Object.keys(vectors(file)));
});

it("a device's private key cannot be exported", async () => {
  const { privateKey } = await createDevice();
  expect(privateKey.extractable).toBe(false);
  await expect(crypto.subtle.exportKey("jwk", privateKey)).rejects.toThrow();
  await expect(crypto.subtle.exportKey("pkcs8", privateKey)).rejects.toThrow();
});
