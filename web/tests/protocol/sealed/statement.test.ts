import { expect, it } from "vitest";
import { toBase64Url } from "@/protocol/sealed/bytes";
import { type JsonObject, writeJws } from "@/protocol/sealed/jws";
import { claimedFingerprint, verifyStatement } from "@/protocol/sealed/statement";
import { expectRefused, hex, vectors } from "./parts";

const python = vectors("sealed/python.json");
const now = python.now as number;
const pinned = hex(python.identity.fingerprint);
const expected = { pinned, bridgeId: "home", now, seen: 0 };
const text = python.statement as string;
const [header = "", claims = "", signature = ""] = text.split(".");
const decode = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as JsonObject;

const key = await crypto.subtle.importKey(
  "pkcs8",
  hex(`302e020100300506032b657004220420${python.identity.private}`),
  "Ed25519",
  false,
  ["sign"],
);

/** A text whose signature holds, whatever it says. */
const forged = (head: JsonObject, body: JsonObject) =>
  writeJws(head, body, async (message) => new Uint8Array(await crypto.subtle.sign("Ed25519", key, message)));

it("is believed by its pinned identity only", async () => {
  await expect(verifyStatement(text, expected)).resolves.toMatchObject({ seq: now });
  await expectRefused(() => verifyStatement(text, { ...expected, pinned: new Uint8Array(32) }), "untrusted");
  await expectRefused(() => verifyStatement(text, { ...expected, pinned: new Uint8Array() }), "untrusted");
  const other = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  const signed = await writeJws(decode(header), decode(claims), async (message) => {
    return new Uint8Array(await crypto.subtle.sign("Ed25519", other.privateKey, message));
  });
  await expectRefused(() => verifyStatement(signed, expected), "untrusted");
});

it("is about one bridge, for its time, and not older than one that was seen", async () => {
  await expectRefused(() => verifyStatement(text, { ...expected, bridgeId: "other" }), "untrusted");
  const { exp } = decode(claims) as { exp: number };
  for (const at of [now - 121, exp + 120]) {
    await expectRefused(() => verifyStatement(text, { ...expected, now: at }), "expired");
  }
  for (const at of [now - 120, exp + 119]) {
    await expect(verifyStatement(text, { ...expected, now: at })).resolves.toBeDefined();
  }
  await expect(verifyStatement(text, { ...expected, seen: now })).resolves.toBeDefined();
  await expectRefused(() => verifyStatement(text, { ...expected, seen: now + 1 }), "rollback");
});

const head = decode(header);
const body = decode(claims);
const jwk = head["jwk"] as JsonObject;

it.each<[string, JsonObject, JsonObject]>([
  ["another algorithm", { ...head, alg: "EdDSA" }, body],
  ["no algorithm", { ...head, alg: "none" }, body],
  ["another kind", { ...head, typ: "JWT" }, body],
  ["one more header", { ...head, kid: "x" }, body],
  ["a private key", { ...head, jwk: { ...jwk, d: "x" } }, body],
  ["another key type", { ...head, jwk: { ...jwk, kty: "oct" } }, body],
  ["no key", { ...head, jwk: null }, body],
  ["one more claim", head, { ...body, extra: 1 }],
  ["a fraction", head, { ...body, seq: 0.5 }],
  ["a text as a number", head, { ...body, iat: "1" }],
  ["a life too long", head, { ...body, exp: now + 48 * 3600 + 1 }],
  ["no keys", head, { ...body, keys: "" }],
  ["keys that are none", head, { ...body, keys: toBase64Url(new Uint8Array(5)) }],
])("is refused with %s though it is signed", async (_, otherHead, otherBody) => {
  await expect(verifyStatement(await forged(head, body), expected)).resolves.toBeDefined();
  const wrong = await forged(otherHead, otherBody);
  await expectRefused(() => verifyStatement(wrong, expected), "malformed");
});

it("tells the identity that it claims, for safety words", async () => {
  expect(await claimedFingerprint(text)).toEqual(pinned);
  await expectRefused(() => claimedFingerprint("a.b.c"), "malformed");
});

it("has one spelling", async () => {
  for (const wrong of [
    "",
    "a.b",
    `${text}=`,
    `${text}.x`,
    ` ${text}`,
    [header, claims, signature.slice(1)].join("."),
  ]) {
    await expectRefused(() => verifyStatement(wrong, expected), "malformed");
  }
  await expectRefused(
    () => verifyStatement(`${"A".repeat(9000)}.${claims}.${signature}`, expected),
    "malformed",
  );
});
