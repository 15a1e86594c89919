"""Ed25519 key rings: who signs, who verifies, and how a key is replaced without downtime.

A ring is a JWK set (RFC 7517 §5). Its first key signs, all of them verify. Tokens are compact JWS (RFC 7515) with
`alg` Ed25519 (RFC 9864), a `kid`, an explicit `typ` (RFC 8725 §3.11) and no other header member, so that a token
chooses nothing but one of our own keys and can never stand for one of another kind.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Self

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from cloudtolocalllm.auth import tokens

ALGORITHM = "Ed25519"
MAX_LENGTH = 4096
"""Characters of a token that is looked at."""

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]", re.ASCII)
"""Three parts; the signature of 64 bytes in its canonical spelling, so that no token has a second one."""


class TokenRefusedError(Exception):
    """A token does not hold. The text gives the reason for the log; a peer is told only that it was refused."""


class KeyRing:
    """Keys of which the first signs and all verify."""

    def __init__(self, keys: tuple[OKPKey, ...]) -> None:
        """Make a ring.

        Args:
            keys: Ed25519, each with a `kid` of its own; those that only verify may be public.

        Raises:
            ValueError: There is none, or they are not such keys.
        """
        if not keys or any(key.get("crv") != "Ed25519" or not key.kid for key in keys):
            raise ValueError("expected at least one Ed25519 key, each with a kid")
        self._keys = {str(key.kid): key for key in keys}
        if len(self._keys) != len(keys):
            raise ValueError("expected keys with different kid")
        self._first = keys[0]
        self._registry = jws.JWSRegistry(algorithms=[ALGORITHM])

    def __repr__(self) -> str:
        return f"KeyRing({list(self._keys)})"

    @classmethod
    def generate(cls) -> Self:
        """Return a ring of one new key."""
        return cls((new_key(),))

    @classmethod
    def from_jwks(cls, document: Mapping[str, Any]) -> Self:
        """Read a JWK set.

        Raises:
            ValueError: It is none, or of other keys.
        """
        try:
            return cls(tuple(OKPKey.import_key(dict(item)) for item in document["keys"]))
        except (JoseError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a JWK set of Ed25519 keys: {type(error).__name__}") from None

    def jwks(self, *, private: bool = False) -> dict[str, Any]:
        """Return the JWK set, the current key first."""
        return {"keys": [key.as_dict(private=private) for key in self._keys.values()]}

    def rotated(self, keep: int = 1) -> "KeyRing":
        """Return a ring whose new first key signs, and which still verifies with `keep` keys of this one."""
        return KeyRing((new_key(), *list(self._keys.values())[:keep]))

    @property
    def kids(self) -> tuple[str, ...]:
        """The keys' ids, the signing one first."""
        return tuple(self._keys)

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return a token of these claims.

        Args:
            claims: JSON values.
            typ: Its kind, such as "c2l-key+jwt".
        """
        header = {"alg": ALGORITHM, "kid": self._first.kid, "typ": typ}
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return jws.serialize_compact(header, payload, self._first, registry=self._registry)

    def verify(self, text: str, *, typ: str, now: float, leeway: float = 5.0) -> dict[str, Any]:
        """Return the claims of a token that holds.

        Args:
            text: As received.
            typ: The kind that is asked for.
            now: Seconds since the epoch.
            leeway: Seconds by which the signer's clock may differ.

        Raises:
            TokenRefusedError: Malformed, forged, of another kind, under an unknown key, without `iat` and `exp` as
                whole numbers, expired, or not yet valid.
        """
        if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
            raise TokenRefusedError("not a token of ours")
        try:
            found = jws.extract_compact(text.encode())
            header = found.headers()
            if header.get("typ") != typ or set(header) != {"alg", "kid", "typ"} or header["alg"] != ALGORITHM:
                raise TokenRefusedError("another kind of token")
            key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
            if key is None:
                raise TokenRefusedError("signed by an unknown key")
            claims = json.loads(jws.deserialize_compact(text, key, registry=self._registry).payload)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise TokenRefusedError("forged or malformed") from None
        if not isinstance(claims, dict) or type(claims.get("iat")) is not int or type(claims.get("exp")) is not int:
            raise TokenRefusedError("expected whole numbers as iat and exp")
        if not claims["iat"] - leeway <= now < claims["exp"] + leeway:
            raise TokenRefusedError("expired or not yet valid")
        return claims


def new_key() -> OKPKey:
    """Return a new key pair with a random `kid`."""
    kid = tokens.random_id(tokens.ID_LENGTH)
    return OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig", "alg": ALGORITHM}, private=True)
