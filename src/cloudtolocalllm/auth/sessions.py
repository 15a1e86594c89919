"""The session cookie: sealed, so that any replica that has the keys serves it and no browser reads it.

What there is to keep of a sign-in (name and e-mail for the page, the provider's refresh token) is in it, with the
browser: the cloud keeps nothing.

JWE compact serialisation (RFC 7516), `alg` "dir" and `enc` "A256GCM" and nothing else: the header of a cookie that
comes back chooses no algorithm, and its `kid` only one of the keys that we hold.
"""

import json
import re
import secrets
from dataclasses import dataclass, fields
from typing import Any

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from cloudtolocalllm.auth import tokens

LIFETIME = 30 * 24 * 3600
"""Seconds a session lasts."""
SKEW = 60
"""Seconds by which another replica's clock may be ahead."""
MAX_LENGTH = 4000
"""Characters of a sealed cookie: with its name it stays below the 4096 bytes that browsers take (RFC 6265bis §5.6).
Ours have about 225, and more with what a provider said."""
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
    name: str = ""
    """What the person is called, for the page only. Empty, as all that follows, when nobody said."""
    email: str = ""
    admin: bool = False
    provider_session: str = ""
    """What stands for the provider's session, by which the provider may end this one."""
    refresh_token: str = ""
    refreshed: int = 0
    """When the provider last vouched for the person, in seconds since the epoch."""

    def __repr__(self) -> str:
        return f"Session(user={self.user!r}, id={self.id!r}, issued={self.issued}, expires={self.expires})"


_OPTIONAL = {
    "nam": "name",
    "eml": "email",
    "adm": "admin",
    "psi": "provider_session",
    "rtk": "refresh_token",
    "rfr": "refreshed",
}
"""Optional members by the claim they are sealed as; left out when they have their default."""
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(Session) if field.name in _OPTIONAL.values()
}


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
        claims |= {claim: value for claim, name in _OPTIONAL.items() if (value := getattr(session, name))}
        content = json.dumps(claims, ensure_ascii=False, separators=(",", ":"))
        return jwe.encrypt_compact(
            header, content.encode("utf-8", "replace"), self._keys[self._current], registry=self._registry
        )

    def seal_text(self, kind: str, text: str) -> str:
        """Return a short text sealed, of a kind that `open` never takes for a session."""
        header = {"alg": "dir", "enc": "A256GCM", "kid": self._current, "typ": kind}
        return jwe.encrypt_compact(header, text.encode(), self._keys[self._current], registry=self._registry)

    def open(self, text: str, *, now: float) -> Session:
        """Return the session in a cookie's value.

        Args:
            text: As received.
            now: Seconds since the epoch.

        Raises:
            SessionRefusedError: Malformed, forged, sealed under a key that we do not hold, expired or not yet valid.
        """
        content = self._opened(text, None)
        try:
            session = _session(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SessionRefusedError("forged or malformed") from None
        if not session.issued - SKEW <= now < session.expires:
            raise SessionRefusedError("expired or not yet valid")
        return session

    def open_text(self, kind: str, text: str) -> str:
        """Return what `seal_text` sealed with this kind.

        Raises:
            SessionRefusedError: Malformed, forged, of another kind, or sealed under a key that we do not hold.
        """
        return self._opened(text, kind).decode()

    def _opened(self, text: str, kind: str | None) -> bytes:
        if len(text) > MAX_LENGTH:
            raise SessionRefusedError("too long")
        if not _SHAPE.fullmatch(text):
            raise SessionRefusedError("not a sealed session")
        try:
            opened = jwe.decrypt_compact(text, lambda of: self._key_of(of, kind), registry=self._registry)
        except SessionRefusedError:
            raise
        except (JoseError, ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise SessionRefusedError("forged or malformed") from None
        return opened.plaintext or b""

    def _key_of(self, recipient: Any, kind: str | None) -> OctKey:
        header = recipient.headers()
        members = _HEADER_MEMBERS if kind is None else _HEADER_MEMBERS | {"typ"}
        if set(header) != members or header["alg"] != "dir" or header["enc"] != "A256GCM":
            raise SessionRefusedError("expected alg dir, enc A256GCM, a kid and nothing else")
        if header.get("typ") != kind:
            raise SessionRefusedError("of another kind")
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
    optional = {name: value[claim] for claim, name in _OPTIONAL.items() if claim in value}
    if any(type(given) is not type(_DEFAULTS[name]) for name, given in optional.items()):
        raise TypeError("expected each member to be of its kind")
    return Session(user, id_, issued, expires, **optional)
