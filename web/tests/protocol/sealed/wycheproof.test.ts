/** Wycheproof's vectors of the three primitives in use, by the very calls that the envelope makes. */
import { expect, it } from "vitest";
import { verify } from "@/protocol/sealed/device";
import { recipient, sender } from "@/protocol/sealed/hpke";
import { expectRefused, hex, pairOf, suiteWith, toHex, type Vector, vectors } from "./parts";

function cases(name: string, count: number): { group: Vector; case_: Vector }[] {
  const { testGroups } = vectors(`wycheproof/${name}.json`);
  const all = testGroups.flatMap((group: Vector) => group.tests.map((case_: Vector) => ({ group, case_ })));
  expect(all).toHaveLength(count);
  return all;
}

it("X25519", async () => {
  let zero = 0;
  for (const { case_ } of cases("x25519_test", 518)) {
    const [privateKey, publicKey] = [hex(case_.private), hex(case_.public)];
    if (case_.flags.includes("ZeroSharedSecret")) {
      zero += 1;
      await expectRefused(
        async () => sender(publicKey, hex(""), undefined, await suiteWith(privateKey)),
        "malformed",
      );
      await expectRefused(async () => recipient(publicKey, await pairOf(privateKey), hex("")), "malformed");
      continue;
    }
    const { privateKey: key } = await pairOf(privateKey);
    const peer = await crypto.subtle.importKey("raw", publicKey, "X25519", true, []);
    const shared = await crypto.subtle.deriveBits({ name: "X25519", public: peer }, key, 256);
    expect(toHex(new Uint8Array(shared)), case_.tcId).toBe(case_.shared);
  }
  expect(zero).toBeGreaterThan(10);
}, 120_000);

it("AES-GCM", async () => {
  for (const { case_ } of cases("aes_gcm_test", 67)) {
    const key = await crypto.subtle.importKey("raw", hex(case_.key), "AES-GCM", false, [
      "encrypt",
      "decrypt",
    ]);
    const algorithm = { name: "AES-GCM", iv: hex(case_.iv), additionalData: hex(case_.aad) };
    const sealed = hex(case_.ct + case_.tag);
    if (case_.result === "valid") {
      expect(toHex(new Uint8Array(await crypto.subtle.encrypt(algorithm, key, hex(case_.msg))))).toBe(
        toHex(sealed),
      );
      expect(toHex(new Uint8Array(await crypto.subtle.decrypt(algorithm, key, sealed)))).toBe(case_.msg);
    } else {
      await expect(crypto.subtle.decrypt(algorithm, key, sealed)).rejects.toThrow();
    }
  }
});

it("ECDSA on P-256 in 64 bytes", async () => {
  for (const { group, case_ } of cases("ecdsa_secp256r1_sha256_p1363_test", 252)) {
    const holds = await verify(hex(group.publicKey.uncompressed), hex(case_.sig), hex(case_.msg));
    expect(holds, case_.tcId).toBe(case_.result === "valid");
  }
}, 120_000);
