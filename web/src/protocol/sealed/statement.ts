/** Which keys a bridge has, signed by its identity (BIK); the form is described in the Python twin. */
import { type Bytes, fromBase64Url, sameBytes, toBase64Url } from "@/protocol/sealed/bytes";
import { fingerprint } from "@/protocol/sealed/device";
import { malformed, SealedError } from "@/protocol/sealed/errors";
import { hasExactly, isCount, readJws, writeJws } from "@/protocol/sealed/jws";
import { decodeConfigs, encodeConfigs, type KeyConfig } from "@/protocol/sealed/key-config";
import { MAX_SKEW } from "@/protocol/sealed/limits";

const WHAT = "a key statement";
const ALGORITHM = "Ed25519";
const TYPE = "c2l-keys+jwt";
const MAX_LENGTH = 8192;
const LIFE = 48 * 3600;

/** What a bridge says of its keys; times are seconds since the epoch. */
export interface Statement {
  readonly bridgeId: string;
  readonly configs: readonly [KeyConfig, ...KeyConfig[]];
  readonly issued: number;
  readonly expires: number;
  readonly seq: number;
}

/** What a statement is held against. */
export interface Expected {
  /** The fingerprint of the bridge's identity. There is no way to do without. */
  readonly pinned: Bytes;
  readonly bridgeId: string;
  /** Seconds since the epoch. */
  readonly now: number;
  /** The highest `seq` that was accepted of this identity; 0 for none. */
  readonly seen: number;
}

/**
 * Returns a statement that holds.
 *
 * @throws SealedError - "untrusted": not by the pinned identity; "expired"; "rollback": a newer one was accepted.
 */
export async function verifyStatement(text: string, expected: Expected): Promise<Statement> {
  const { header, claims, signature, signed } = readJws(text, WHAT, MAX_LENGTH);
  const publicKey = headerKey(header);
  if (!sameBytes(await fingerprint(publicKey), expected.pinned)) {
    throw new SealedError(
      "untrusted",
      "expected a key statement by the pinned identity; pair this device again",
    );
  }
  const key = await crypto.subtle.importKey("raw", publicKey, ALGORITHM, false, ["verify"]);
  if (!(await crypto.subtle.verify(ALGORITHM, key, signature, signed))) {
    throw new SealedError("untrusted", "expected a key statement whose signature holds");
  }
  const statement = readClaims(claims);
  if (statement.bridgeId !== expected.bridgeId) {
    throw new SealedError("untrusted", "expected a key statement about this bridge");
  }
  if (expected.now < statement.issued - MAX_SKEW || expected.now >= statement.expires + MAX_SKEW) {
    throw new SealedError("expired", "expected a key statement for this time; see that the clock is right");
  }
  if (statement.seq < expected.seen) {
    throw new SealedError("rollback", "expected no key statement older than one that was accepted");
  }
  return statement;
}

/**
 * Returns the fingerprint of the identity that a statement says it is by; nothing of it is verified.
 *
 * For a pairing without a link only: it is what the safety words are made of, and is pinned when they were found equal.
 */
export async function claimedFingerprint(text: string): Promise<Bytes> {
  return await fingerprint(headerKey(readJws(text, WHAT, MAX_LENGTH).header));
}

/** Returns a statement signed by an identity; for tests, as bridges are not browsers. */
export async function signStatement(
  statement: Statement,
  publicKey: Bytes,
  privateKey: CryptoKey,
): Promise<string> {
  const claims = {
    iss: statement.bridgeId,
    iat: statement.issued,
    exp: statement.expires,
    seq: statement.seq,
    keys: toBase64Url(encodeConfigs(statement.configs)),
  };
  const header = {
    alg: ALGORITHM,
    typ: TYPE,
    jwk: { crv: ALGORITHM, kty: "OKP", x: toBase64Url(publicKey) },
  };
  return await writeJws(header, claims, async (message) => {
    return new Uint8Array(await crypto.subtle.sign(ALGORITHM, privateKey, message));
  });
}

function headerKey(header: Readonly<Record<string, unknown>>): Bytes {
  const { alg, typ, jwk } = header;
  if (!hasExactly(header, ["alg", "typ", "jwk"]) || alg !== ALGORITHM || typ !== TYPE) {
    throw malformed(`a header of alg ${ALGORITHM}, typ ${TYPE} and jwk in ${WHAT}`);
  }
  if (!hasExactly(jwk, ["crv", "kty", "x"]) || jwk["crv"] !== ALGORITHM || jwk["kty"] !== "OKP") {
    throw malformed(`a public key of Ed25519 in ${WHAT}`);
  }
  return fromBase64Url(jwk["x"], "a public key", 32);
}

function readClaims(claims: Readonly<Record<string, unknown>>): Statement {
  const { iss, iat, exp, seq, keys } = claims;
  if (
    !hasExactly(claims, ["iss", "iat", "exp", "seq", "keys"]) ||
    typeof iss !== "string" ||
    !isCount(iat) ||
    !isCount(exp) ||
    !isCount(seq) ||
    exp - iat > LIFE
  ) {
    throw malformed(`iss, iat, exp, seq and keys in ${WHAT}`);
  }
  return {
    bridgeId: iss,
    configs: decodeConfigs(fromBase64Url(keys, "keys")),
    issued: iat,
    expires: exp,
    seq,
  };
}
