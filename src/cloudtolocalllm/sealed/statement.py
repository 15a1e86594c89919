"""Which keys a bridge has, signed by its identity (BIK).

A compact JWS (RFC 7515): `alg` Ed25519 (RFC 9864), `typ` c2l-keys+jwt, and the identity's public key as `jwk`, which
is believed only because its SHA-256 is the fingerprint that the client pinned when it was paired. Claims: `iss` the
bridge's id, `iat`, `exp`, the rising `seq`, and `keys`, the key configurations in base64url. No other member is
allowed in either part.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.errors import ExpiredError, MalformedError, RollbackError, UntrustedError
from cloudtolocalllm.sealed.fingerprint import fingerprint, same
from cloudtolocalllm.sealed.key_config import KeyConfig, decode_configs, encode_configs
from cloudtolocalllm.sealed.key_ring import LIFE, KeyRing
from cloudtolocalllm.sealed.limits import MAX_SKEW

TYPE: Final = "c2l-keys+jwt"
MAX_LENGTH: Final = 8192
"""Characters of a statement that is looked at."""
MAX_SEQ: Final = 2**53 - 1
"""What a number can be in every JSON reader (RFC 7493 §2.2)."""

_ALGORITHM: Final = "Ed25519"
_REGISTRY: Final = jws.JWSRegistry(algorithms=[_ALGORITHM])
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]", re.ASCII)
_CLAIMS: Final = {"iss", "iat", "exp", "seq", "keys"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a bridge says of its keys."""

    bridge_id: str
    configs: tuple[KeyConfig, ...]
    issued: int
    """Seconds since the epoch, as `expires`."""
    expires: int
    seq: int


def state_keys(ring: KeyRing, bridge_id: str, now: float) -> Statement:
    """Return the statement of a ring's current key."""
    return Statement(bridge_id, (ring.current.config,), int(now), ring.expires(), ring.seq)


def sign(statement: Statement, identity: Ed25519PrivateKey) -> str:
    """Return a statement signed by the bridge's identity."""
    key = OKPKey.import_key(_jwk(identity.public_key().public_bytes_raw(), identity.private_bytes_raw()))
    header = {"alg": _ALGORITHM, "typ": TYPE, "jwk": _jwk(identity.public_key().public_bytes_raw())}
    claims = {
        "iss": statement.bridge_id,
        "iat": statement.issued,
        "exp": statement.expires,
        "seq": statement.seq,
        "keys": base64url.encode(encode_configs(statement.configs)),
    }
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return jws.serialize_compact(header, payload, key, registry=_REGISTRY)


def verify(text: str, pinned: bytes, bridge_id: str, now: float, *, seen: int = 0) -> Statement:
    """Return a statement that holds.

    Args:
        text: As received.
        pinned: The fingerprint of the bridge's identity. There is no way to do without.
        bridge_id: Whose statement it must be.
        now: Seconds since the epoch.
        seen: The highest `seq` that was accepted of this identity; 0 for none.

    Raises:
        MalformedError: It is not a statement.
        UntrustedError: It is not by the pinned identity, not about this bridge, or its signature does not hold.
        ExpiredError: It is not valid at this time.
        RollbackError: A newer one was accepted before.
    """
    if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
        raise MalformedError("expected a key statement")
    public = _header_key(_json(text.split(".")[0]))
    if not same(fingerprint(public), pinned):
        raise UntrustedError("expected a key statement by the pinned identity; pair this device again")
    try:
        jws.deserialize_compact(text, OKPKey.import_key(_jwk(public)), registry=_REGISTRY)
    except (JoseError, ValueError):
        raise UntrustedError("expected a key statement whose signature holds") from None
    statement = _claims(_json(text.split(".")[1]))
    if statement.bridge_id != bridge_id:
        raise UntrustedError("expected a key statement about this bridge")
    if not statement.issued - MAX_SKEW <= now < statement.expires + MAX_SKEW:
        raise ExpiredError("expected a key statement for this time; see that the clock is right")
    if statement.seq < seen:
        raise RollbackError("expected no key statement older than one that was accepted")
    return statement


def claimed_fingerprint(text: str) -> bytes:
    """Return the fingerprint of the identity that a statement says it is by; nothing of it is verified.

    For a pairing without a link only: the safety words are made of it, and it is pinned when they were found equal.

    Raises:
        MalformedError: It is not a statement.
    """
    if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
        raise MalformedError("expected a key statement")
    return fingerprint(_header_key(_json(text.split(".")[0])))


def _jwk(public: bytes, private: bytes | None = None) -> dict[str, Any]:
    key: dict[str, Any] = {"crv": "Ed25519", "kty": "OKP", "x": base64url.encode(public)}
    return key if private is None else key | {"d": base64url.encode(private)}


def _json(part: str) -> dict[str, Any]:
    try:
        value = json.loads(base64url.decode(part, "a part of a key statement"))
    except (ValueError, RecursionError):
        raise MalformedError("expected JSON in a key statement") from None
    if not isinstance(value, dict):
        raise MalformedError("expected a JSON object in a key statement")
    return value


def _header_key(header: dict[str, Any]) -> bytes:
    """Return the public key in a header."""
    jwk = header.get("jwk")
    if set(header) != {"alg", "typ", "jwk"} or header["alg"] != _ALGORITHM or header["typ"] != TYPE:
        raise MalformedError(f"expected a header of alg {_ALGORITHM}, typ {TYPE} and jwk in a key statement")
    if not isinstance(jwk, dict) or not isinstance(jwk.get("x"), str):
        raise MalformedError("expected a public key in a key statement")
    public = base64url.decode(jwk["x"], "a public key", 32)
    if jwk != _jwk(public):
        raise MalformedError("expected a public key of Ed25519 in a key statement")
    return public


def _claims(claims: dict[str, Any]) -> Statement:
    numbers = [claims.get(name) for name in ("iat", "exp", "seq")]
    if set(claims) != _CLAIMS or any(type(number) is not int or not 0 <= number <= MAX_SEQ for number in numbers):
        raise MalformedError("expected iss, iat, exp, seq and keys in a key statement")
    if not isinstance(claims["iss"], str) or not isinstance(claims["keys"], str):
        raise MalformedError("expected iss and keys as texts in a key statement")
    if claims["exp"] - claims["iat"] > LIFE:
        raise MalformedError(f"expected a key statement for at most {LIFE} s")
    configs = decode_configs(base64url.decode(claims["keys"], "keys"))
    return Statement(claims["iss"], configs, claims["iat"], claims["exp"], claims["seq"])
