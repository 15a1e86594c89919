/** Safety words: eight words that are compared at two screens. Why eight is explained in the Python twin. */
import { type Bytes, concat, utf8 } from "@/protocol/sealed/bytes";
import { WORDS } from "@/protocol/sealed/word-list";

const COUNT = 8;
const ITERATIONS = 2 ** 17;
const BITS = 11;

/** Returns the words for the fingerprints of a bridge's identity and a device's key. */
export async function safetyWords(bridge: Bytes, device: Bytes): Promise<string[]> {
  const base = await crypto.subtle.importKey("raw", concat(bridge, device), "PBKDF2", false, ["deriveBits"]);
  const algorithm = {
    name: "PBKDF2",
    hash: "SHA-256",
    salt: utf8("c2l safety words v1"),
    iterations: ITERATIONS,
  };
  const bytes = new Uint8Array(await crypto.subtle.deriveBits(algorithm, base, COUNT * BITS));
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return Array.from({ length: COUNT }, (_, index) => {
    return WORDS[Number.parseInt(bits.slice(index * BITS, (index + 1) * BITS), 2)] ?? "";
  });
}
