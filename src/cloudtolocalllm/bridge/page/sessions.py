"""Who may use the page at home: links that sign in once, and the sessions that they begin. Pure but for chance.

A link is made by whoever can read the bridge's private file (`page.link`), so by the person whose bridge it is; the
bridge checks it without having been told of it. A session has two halves, and both are needed. The cookie is out of
scripts' reach, but a browser sends it to every port of this computer, where another user's program may listen; the
key is kept for this very address, port included, and goes into a field that no other page can send. Both end with
the bridge, so that whoever listens on its port meanwhile gains nothing by them.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from cloudtolocalllm.runtime.clock import Clock

LINK_LIFE: Final = 300
"""Seconds for which a link is good."""
SESSION_LIFE: Final = 30 * 86_400
"""Seconds."""
MAX_SESSIONS: Final = 32
"""The oldest goes when there are more: browsers and profiles of one person."""
MAX_USED: Final = 1024
"""Links that are remembered as used; more are refused until some are too old to be used again."""
SECRET_BYTES: Final = 32

_EXPIRES: Final = 8
_NONCE: Final = 17
"""Bytes; with them a token ends without "=", which not every terminal takes for a part of a link."""
_LABEL: Final = b"cloudtolocalllm page link\0"


def make_token(secret: bytes, now: float) -> str:
    """Return what signs in once.

    Args:
        secret: Of the bridge that runs.
        now: Seconds since the epoch.
    """
    claim = (int(now) + LINK_LIFE).to_bytes(_EXPIRES, "big") + secrets.token_bytes(_NONCE)
    return base64.urlsafe_b64encode(claim + _mac(secret, claim)).decode()


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is let in."""

    cookie: bytes
    """Its digest."""
    key: bytes
    """Its digest."""
    expires: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that begins, with what only its browser knows."""

    session: Session
    cookie: str
    key: str


class Sessions:
    """All of one run of the bridge."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        """Begin without any.

        Args:
            secret: Of which links are made.
            clock: The time.
        """
        self._secret = secret
        self._clock = clock
        self._used: dict[bytes, float] = {}
        self._sessions: dict[bytes, Session] = {}
        """By the cookie's digest, the oldest first."""

    def __len__(self) -> int:
        return len(self._sessions)

    def sign_in(self, token: str) -> tuple[Begun, Session | None] | None:
        """Use a link up.

        Args:
            token: Of the link.

        Returns:
            The new session, and the one that had to end for it; None when the link is not good.
        """
        now = self._clock.wall()
        claim = _opened(self._secret, token)
        if claim is None:
            return None
        expires = int.from_bytes(claim[:_EXPIRES], "big")
        self._used = {nonce: until for nonce, until in self._used.items() if until > now}
        if not now < expires <= now + LINK_LIFE or claim in self._used or len(self._used) >= MAX_USED:
            return None
        self._used[claim] = expires
        cookie, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        session = Session(_digest(cookie), _digest(key), now + SESSION_LIFE)
        ended = self._sessions.pop(next(iter(self._sessions))) if len(self._sessions) >= MAX_SESSIONS else None
        self._sessions[session.cookie] = session
        return Begun(session, cookie, key), ended

    def find(self, cookie: str, key: str) -> Session | None:
        """Return the session that both halves belong to."""
        session = self._sessions.get(_digest(cookie))
        if session is None or not hmac.compare_digest(session.key, _digest(key)):
            return None
        return session if self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Tell whether a session has not ended."""
        return session.cookie in self._sessions and self._clock.wall() < session.expires

    def end(self, session: Session) -> None:
        """End a session."""
        self._sessions.pop(session.cookie, None)


def _opened(secret: bytes, token: str) -> bytes | None:
    try:
        content = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    if base64.urlsafe_b64encode(content) != token.encode():
        return None  # the same in other letters
    claim, mac = content[: _EXPIRES + _NONCE], content[_EXPIRES + _NONCE :]
    return claim if len(claim) == _EXPIRES + _NONCE and hmac.compare_digest(mac, _mac(secret, claim)) else None


def _mac(secret: bytes, claim: bytes) -> bytes:
    return hmac.digest(secret, _LABEL + claim, "sha256")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
