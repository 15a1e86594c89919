/** Key configurations: which public key a message is sealed to (RFC 9458 §3, `application/ohttp-keys`). */
import { type Bytes, concat, sameBytes } from "@/protocol/sealed/bytes";
import { malformed } from "@/protocol/sealed/errors";
import { KEY_BYTES, SUITE_IDS } from "@/protocol/sealed/hpke";

const MAX_BYTES = 4096;
const KEM = SUITE_IDS.subarray(0, 2);
const ALGORITHMS = SUITE_IDS.subarray(2);

/** One public key of the suite in use. */
export interface KeyConfig {
  readonly keyId: number;
  readonly publicKey: Bytes;
}

/** Returns the seven bytes that a message sealed to it begins with. */
export function configHeader({ keyId }: KeyConfig): Bytes {
  return concat(Uint8Array.of(keyId), SUITE_IDS);
}

/** Returns a list, the preferred configuration first. */
export function encodeConfigs(configs: readonly KeyConfig[]): Bytes {
  return concat(
    ...configs.map(({ keyId, publicKey }) => {
      const each = concat(
        Uint8Array.of(keyId),
        KEM,
        publicKey,
        Uint8Array.of(0, ALGORITHMS.length),
        ALGORITHMS,
      );
      return concat(Uint8Array.of(0, each.length), each);
    }),
  );
}

/** Reads a list; configurations for other suites are passed over, so that another one can be added some day. */
export function decodeConfigs(data: Bytes): readonly [KeyConfig, ...KeyConfig[]] {
  if (data.length > MAX_BYTES) throw malformed(`key configurations of at most ${MAX_BYTES} bytes`);
  const seen = new Set<number>();
  const usable: KeyConfig[] = [];
  for (let at = 0; at < data.length; ) {
    const size = number16(data, at);
    const each = data.slice(at + 2, at + 2 + size);
    at += 2 + size;
    const keyId = each[0];
    if (at > data.length || size < 3 || keyId === undefined) throw malformed("whole key configurations");
    if (seen.has(keyId)) throw malformed("key configurations with different ids");
    seen.add(keyId);
    const config = decodeConfig(keyId, each);
    if (config) usable.push(config);
  }
  const [first, ...others] = usable;
  if (!first) throw malformed("a key configuration for X25519, HKDF-SHA256 and AES-128-GCM");
  return [first, ...others];
}

function decodeConfig(keyId: number, data: Bytes): KeyConfig | undefined {
  if (!sameBytes(data.subarray(1, 3), KEM)) return undefined;
  const algorithms = data.subarray(3 + KEY_BYTES);
  const size = number16(algorithms, 0);
  if (algorithms.length !== 2 + size || size === 0 || size % 4 !== 0) {
    throw malformed("the algorithms of a key configuration in whole pairs");
  }
  for (let at = 2; at < algorithms.length; at += 4) {
    if (sameBytes(algorithms.subarray(at, at + 4), ALGORITHMS)) {
      return { keyId, publicKey: data.slice(3, 3 + KEY_BYTES) };
    }
  }
  return undefined;
}

function number16(data: Uint8Array, at: number): number {
  return ((data[at] ?? 0) << 8) | (data[at + 1] ?? 0);
}
