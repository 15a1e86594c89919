"""The session cookie: sealed, so that any replica that has the keys serves it and no browser reads it.

JWE compact serialisation (RFC 7516), `alg` "dir" and `enc` "A256GCM" and nothing else: the header of a cookie that
comes back chooses no algorithm, and its `kid` only one of the keys that we hold.
"""

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from cloudtolocalllm.auth import tokens

LIFETIME = 30 * 24 * 3600
"""Seconds a session lasts."""
SKEW = 60
"""Seconds by which another replica's clock may be ahead."""
MAX_LENGTH = 2048
"""Characters of a sealed cookie; ours have about 225."""
KEY_BYTES = 32

COOKIE = "c2l_session"
"""On plain HTTP, which only loopback uses."""
HOST_COOKIE = "__Host-c2l_session"
"""On HTTPS: browsers take this name only with Secure, Path=/ and no Domain (RFC 6265bis §4.1.3.2)."""

_HEADER_MEMBERS = {"alg", "enc", "kid"}
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.\.[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{21}[AQgw]", re.ASCII)
"""Five parts: header, no encrypted key, 12 bytes of IV, ciphertext, 16 bytes of tag in the canonical spelling."""


class SessionRefusedError(Exception):
    """The cookie does not hold. The text gives the reason for the log; a browser is only told to sign in."""


@dataclass(frozen=True, slots=True)
class Session:
    """The claims of a session."""

    user: str
    id: str
    issued: int
    """Seconds since the epoch."""
    expires: int


@dataclass(frozen=True, slots=True)
class SealingKey:
    """One key under which sessions are sealed."""

    kid: str
    secret: bytes
    """32 bytes; never logged."""

    def __repr__(self) -> str:
        return f"SealingKey(kid={self.kid!r})"


def new_sealing_key() -> SealingKey:
    """Return a fresh key."""
    return SealingKey(tokens.random_id(tokens.ID_LENGTH), secrets.token_bytes(KEY_BYTES))


def new_session(user: str, *, now: float) -> Session:
    """Return a session that begins now.

    Args:
        user: The user's id.
        now: Seconds since the epoch.
    """
    return Session(user, "s_" + tokens.random_id(20), int(now), int(now) + LIFETIME)


class Sealer:
    """Seals and opens sessions."""

    def __init__(self, keys: tuple[SealingKey, ...]) -> None:
        """Make a sealer.

        Args:
            keys: The first seals; all open, so that a rotation ends no session.

        Raises:
            ValueError: There is none, or one has not 32 bytes.
        """
        if not keys or any(len(key.secret) != KEY_BYTES for key in keys):
            raise ValueError(f"expected at least one key, each of {KEY_BYTES} bytes")
        self._current = keys[0].kid
        self._keys = {key.kid: OctKey.import_key(key.secret) for key in keys}
        # joserfc refuses what is not listed here: other key management, other ciphers, and "zip".
        self._registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"])

    def seal(self, session: Session) -> str:
        """Return the cookie's value."""
        header = {"alg": "dir", "enc": "A256GCM", "kid": self._current}
        claims = {"sub": session.user, "sid": session.id, "iat": session.issued, "exp": session.expires}
        return jwe.encrypt_compact(
            header, json.dumps(claims).encode(), self._keys[self._current], registry=self._registry
        )

    def open(self, text: str, *, now: float) -> Session:
        """Return the session in a cookie's value.

        Args:
            text: As received.
            now: Seconds since the epoch.

        Raises:
            SessionRefusedError: Malformed, forged, sealed under a key that we do not hold, expired or not yet valid.
        """
        if len(text) > MAX_LENGTH:
            raise SessionRefusedError("too long")
        if not _SHAPE.fullmatch(text):
            raise SessionRefusedError("not a sealed session")
        try:
            opened = jwe.decrypt_compact(text, self._key_of, registry=self._registry)
            session = _session(json.loads(opened.plaintext or b""))
        except SessionRefusedError:
            raise
        except (JoseError, ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise SessionRefusedError("forged or malformed") from None
        if not session.issued - SKEW <= now < session.expires:
            raise SessionRefusedError("expired or not yet valid")
        return session

    def _key_of(self, recipient: Any) -> OctKey:
        header = recipient.headers()
        if set(header) != _HEADER_MEMBERS or header["alg"] != "dir" or header["enc"] != "A256GCM":
            raise SessionRefusedError("expected alg dir, enc A256GCM, a kid and nothing else")
        kid = header["kid"]
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise SessionRefusedError("sealed under an unknown key")
        return key


def _session(value: Any) -> Session:
    user, id_, issued, expires = value["sub"], value["sid"], value["iat"], value["exp"]
    # type() and not isinstance(): bool is an int in Python and is no time
    if (type(user), type(id_), type(issued), type(expires)) != (str, str, int, int):
        raise ValueError("expected two texts and two whole numbers")
    return Session(user, id_, issued, expires)
