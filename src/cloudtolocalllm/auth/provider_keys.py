"""The public keys of an OpenID provider, as its JWK set gives them (RFC 7517). Pure."""

from collections.abc import Mapping
from typing import Any, Self

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

MAX_KEYS = 50
"""Keys of a set that are looked at; providers have two or three."""
RSA_BITS = range(2048, 8193)
"""Less can be broken (RFC 7518 §3.3); more costs us time at every token."""

Key = RSAKey | ECKey | OKPKey

_ALGORITHMS = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("OKP", "Ed25519"): ("EdDSA", "Ed25519"),
}
_PUBLIC = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}


class ProviderKeys:
    """Keys by their `kid`."""

    def __init__(self, keys: tuple[tuple[str | None, tuple[str, ...], Key], ...]) -> None:
        """Make a set; use `from_jwks`.

        Args:
            keys: For each its `kid`, the algorithms that it may be used with, and itself.
        """
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def from_jwks(cls, document: object) -> Self:
        """Read a JWK set, leaving out keys that are not for signatures that we take.

        Raises:
            ValueError: It is no JWK set.
        """
        items = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(items, list):
            raise ValueError("expected a JWK set")  # noqa: TRY004 - the content is at fault, not a caller's type
        found = (_read(item) for item in items[:MAX_KEYS] if isinstance(item, Mapping))
        return cls(tuple(key for key in found if key is not None))

    def find(self, kid: object, algorithm: str) -> list[Key]:
        """Return the keys that a token with this `kid` and algorithm may be signed by.

        Args:
            kid: Of the token's header. None fits when exactly one key fits the algorithm (Core §10.1).
            algorithm: Of the token's header.
        """
        fitting = [(own, key) for own, algorithms, key in self._keys if algorithm in algorithms]
        if kid is None:
            return [key for _, key in fitting] if len(fitting) == 1 else []
        return [key for own, key in fitting if own is not None and own == kid]


def _read(item: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...], Key] | None:
    kind = item.get("kty")
    kid, use, operations = item.get("kid"), item.get("use", "sig"), item.get("key_ops", ["verify"])
    if not isinstance(kind, str) or not isinstance(kid, str | None) or use != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    curve = item.get("crv") if kind != "RSA" else None
    usable = _ALGORITHMS.get((kind, curve)) if isinstance(curve, str | None) else None
    if usable is None:
        return None
    if "alg" in item:  # it may be named by the older of its two names
        usable = tuple(name for name in usable if name == item["alg"] or (kind == "OKP" and item["alg"] in usable))
    key = _import(kind, {name: item.get(name) for name in _PUBLIC[kind]}) if usable else None
    return None if key is None else (kid, usable, key)


def _import(kind: str, value: dict[str, Any]) -> Key | None:
    """Return the key; None when it is malformed or of a size that we do not take."""
    try:
        if kind == "RSA":
            if not isinstance(value["n"], str) or not 300 <= len(value["n"]) <= 1400:  # before joserfc warns of it
                return None
            key = RSAKey.import_key(value)
            return key if key.public_key.key_size in RSA_BITS else None
        found = ECKey.import_key(value) if kind == "EC" else OKPKey.import_key(value)
        found.get_op_key("verify")  # makes the point, which fails when it is on no curve
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return found
