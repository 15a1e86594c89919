"""Proof of possession (RFC 9449): a signed credential is worth nothing without the private key that it names.

Pure: time and nonces are arguments. Keys are Ed25519 and nothing else, so a proof chooses no algorithm. What makes a
proof fresh is the server's nonce and not the client's clock (RFC 9449 §11.1): a machine at home whose clock is hours
off, as after a change between two systems, is served all the same.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from cloudtolocalllm.auth.signing import ALGORITHM, KeyRing

TYP = "dpop+jwt"
SCHEME = "DPoP"
MAX_LENGTH = 2048
"""Characters of a proof; ours have about 650."""
NONCE_LIFETIME = 60.0
"""Seconds a nonce is valid: the time in which a proof must be used."""
NONCE_SKEW = 5.0
"""Seconds by which another replica's clock may be ahead."""
MAX_SKEW = 24 * 3600.0
"""Seconds by which the client's clock may differ: time zones are forgiven, a proof kept for a year is not."""
REPLAY_WINDOW = 120.0
"""Seconds for which a proof's `jti` must be remembered: longer than any nonce lives."""

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]", re.ASCII)
_JTI = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_COORDINATE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)
"""32 bytes in their canonical spelling, so that a key has one thumbprint."""
_NONCE = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
_HEADER = {"typ", "alg", "jwk"}
_JWK = {"kty", "crv", "x"}
_DEFAULT_PORT = {"http": 80, "https": 443}


class ProofRefusedError(Exception):
    """A proof does not hold. The text gives the reason, for the log and for the client: it quotes nothing of it."""


class NonceRefusedError(ProofRefusedError):
    """The proof holds but for its nonce: the client may try again with the one that it is given now."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds but for its `jti`, which whoever verified it must take only once."""

    thumbprint: str
    """Of the key that signed (RFC 7638)."""
    id: str
    """The `jti`: 16 to 64 characters of base64url."""


class ProofKey:
    """A client's key pair. It is made where it is used and never leaves."""

    def __init__(self, key: OKPKey) -> None:
        """Make one of a private Ed25519 key.

        Raises:
            ValueError: It is none.
        """
        if key.get("crv") != "Ed25519" or not key.is_private:
            raise ValueError("expected a private Ed25519 key")
        self._key = key
        self._registry = jws.JWSRegistry(algorithms=[ALGORITHM])

    def __repr__(self) -> str:
        return f"ProofKey({self.thumbprint!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProofKey) and other.private_jwk() == self.private_jwk()

    def __hash__(self) -> int:
        return hash(self.thumbprint)

    @classmethod
    def generate(cls) -> Self:
        """Return a new key pair."""
        return cls(OKPKey.generate_key("Ed25519", private=True))

    @classmethod
    def from_jwk(cls, value: Mapping[str, Any]) -> Self:
        """Read a private JWK.

        Raises:
            ValueError: It is none, or of another kind.
        """
        try:
            return cls(OKPKey.import_key({name: value[name] for name in ("kty", "crv", "x", "d")}))
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a private Ed25519 JWK: {type(error).__name__}") from None

    def private_jwk(self) -> dict[str, str]:
        """Return all of it; for the file of its owner alone."""
        value = self._key.as_dict(private=True)
        return {name: str(value[name]) for name in ("kty", "crv", "x", "d")}

    def public_jwk(self) -> dict[str, str]:
        """Return what everybody may know."""
        value = self._key.as_dict(private=False)
        return {name: str(value[name]) for name in ("kty", "crv", "x")}

    @property
    def thumbprint(self) -> str:
        """The public key's SHA-256 (RFC 7638)."""
        return thumbprint(self.public_jwk())

    def prove(self, method: str, url: str, *, now: float, nonce: str = "", credential: str = "") -> str:
        """Return a proof for one request.

        Args:
            method: Of the request.
            url: Of the request: http or https, also for a WebSocket; without query and fragment.
            now: Seconds since the epoch.
            nonce: The server's latest; "" before there is one.
            credential: What the request presents; "" for none.
        """
        header = {"typ": TYP, "alg": ALGORITHM, "jwk": self.public_jwk()}
        claims: dict[str, Any] = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(now)}
        if nonce:
            claims["nonce"] = nonce
        if credential:
            claims["ath"] = _hash(credential)
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return jws.serialize_compact(header, payload, self._key, registry=self._registry)


class Nonces:
    """Nonces that nobody has to remember: the time, and a MAC over it that only the servers can make."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        """Make nonces.

        Args:
            keys: The first issues, all verify; the same at each replica.

        Raises:
            ValueError: There is none.
        """
        if not keys:
            raise ValueError("expected at least one key")
        self._keys = keys

    @classmethod
    def of_ring(cls, ring: KeyRing) -> Self:
        """Derive the keys from a ring's private ones, so that there is no further secret to keep.

        Raises:
            ValueError: A key of the ring is only the public half.
        """
        private = [jwk["d"] for jwk in ring.jwks(private=True)["keys"]]
        return cls(tuple(hmac.digest(d.encode(), b"c2l dpop nonce v1", "sha256") for d in private))

    def issue(self, now: float) -> str:
        """Return a nonce that is valid from now on.

        Args:
            now: Seconds since the epoch.
        """
        stamp = max(0, int(now)).to_bytes(8, "big")
        return _encode(stamp + self._mac(self._keys[0], stamp))

    def holds(self, text: str, now: float) -> bool:
        """Tell whether a nonce is one of ours and recent."""
        if not _NONCE.fullmatch(text):
            return False
        value = base64.urlsafe_b64decode(text)
        stamp, mac = value[:8], value[8:]
        age = now - int.from_bytes(stamp, "big")
        ours = any([hmac.compare_digest(mac, self._mac(key, stamp)) for key in self._keys])  # noqa: C419 - in constant time
        return ours and -NONCE_SKEW <= age < NONCE_LIFETIME

    @staticmethod
    def _mac(key: bytes, stamp: bytes) -> bytes:
        return hmac.digest(key, b"nonce" + stamp, "sha256")[:16]


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of a public Ed25519 JWK (for one from a peer, `public_key` comes first).

    Raises:
        KeyError: A member is missing.
    """
    return OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")}).thumbprint()


def public_key(value: object) -> OKPKey:
    """Read a peer's public key.

    Raises:
        ProofRefusedError: It is no public Ed25519 JWK, or says more than that.
    """
    if not isinstance(value, dict) or set(value) != _JWK or value["kty"] != "OKP" or value["crv"] != "Ed25519":
        raise ProofRefusedError("expected a public Ed25519 key: members kty, crv and x alone")
    if not isinstance(value["x"], str) or not _COORDINATE.fullmatch(value["x"]):
        raise ProofRefusedError("expected member x of the key to be 32 bytes in base64url")
    try:
        return OKPKey.import_key(dict(value))
    except (JoseError, ValueError):
        raise ProofRefusedError("expected a public Ed25519 key") from None


def verify(
    text: str,
    *,
    method: str,
    path: str,
    authorities: Collection[str],
    nonces: Nonces,
    now: float,
    credential: str = "",
    key: str | None = None,
) -> Proof:
    """Return a proof that holds for this request. Its `jti` is still to be taken once.

    Args:
        text: The DPoP field, as received.
        method: Of the request.
        path: Of the request, without query.
        authorities: HOST:PORT that this server is reached by, as `authority` writes them.
        nonces: Ours.
        now: Seconds since the epoch.
        credential: What the request presents; "" for none.
        key: Thumbprint of the key that must have signed; None for whichever did.

    Raises:
        NonceRefusedError: All is well but the nonce, which is missing, stale or not ours.
        ProofRefusedError: Anything else is not.
    """
    claims, signer = _opened(text)
    if key is not None and not hmac.compare_digest(signer, key):
        raise ProofRefusedError("signed by another key than the credential names")
    if claims.get("htm") != method:
        raise ProofRefusedError("for another method")
    _check_target(claims.get("htu"), path, authorities)
    if (claims.get("ath") is None) != (not credential) or (credential and claims["ath"] != _hash(credential)):
        raise ProofRefusedError("for another credential")
    issued, id_, nonce = claims.get("iat"), claims.get("jti"), claims.get("nonce")
    if type(issued) is not int or abs(now - issued) > MAX_SKEW:
        raise ProofRefusedError("made at another time: set this machine's clock")
    if not isinstance(id_, str) or not _JTI.fullmatch(id_):
        raise ProofRefusedError("expected a jti of 16 to 64 characters of base64url")
    # Last, so that a client is asked to try again only when that will help.
    if not isinstance(nonce, str) or not nonces.holds(nonce, now):
        raise NonceRefusedError("expected the server's latest nonce")
    return Proof(signer, id_)


def authority(url: str) -> str | None:
    """Return HOST:PORT of an http or https URL, in lower case and with the port spelled out; None for another."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORT or not parts.hostname or "@" in parts.netloc:
            return None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{host}:{parts.port or _DEFAULT_PORT[parts.scheme]}"
    except ValueError:
        return None


def _opened(text: str) -> tuple[dict[str, Any], str]:
    """Return the claims and the signer's thumbprint."""
    if len(text) > MAX_LENGTH or not _SHAPE.fullmatch(text):
        raise ProofRefusedError("expected a DPoP proof")
    try:
        header = jws.extract_compact(text.encode()).headers()
        if set(header) != _HEADER or header["typ"] != TYP or header["alg"] != ALGORITHM:
            raise ProofRefusedError(f"expected a header of typ {TYP}, alg {ALGORITHM}, jwk and nothing else")
        signer = public_key(header["jwk"])
        registry = jws.JWSRegistry(algorithms=[ALGORITHM])
        claims = json.loads(jws.deserialize_compact(text, signer, registry=registry).payload)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProofRefusedError("forged or malformed") from None
    if not isinstance(claims, dict):
        raise ProofRefusedError("expected an object of claims")
    return claims, signer.thumbprint()


def _check_target(htu: object, path: str, authorities: Collection[str]) -> None:
    """Compare a proof's URL. Its scheme is left out: behind a front that ends TLS we cannot know it."""
    where = authority(htu) if isinstance(htu, str) and len(htu) <= 1024 else None
    if where is None or where not in authorities:
        raise ProofRefusedError("for another server")
    parts = urlsplit(str(htu))
    if parts.path != path or parts.query or parts.fragment:
        raise ProofRefusedError("for another path")


def _hash(text: str) -> str:
    return _encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
