"""A sign-in under way, kept by the browser that began it: a sealed cookie, good for ten minutes.

It binds what comes back to this browser (RFC 9700 §4.7): a callback with somebody else's state finds no cookie of its
own. SameSite is Lax, for the callback is a navigation from the provider's site.
"""

import json
import re
from dataclasses import dataclass

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.sessions import Sealer, SessionRefusedError

LIFETIME = 600
"""Seconds."""
COOKIE = "c2l_login"
"""On plain HTTP, which only loopback uses."""
HOST_COOKIE = "__Host-c2l_login"

MAX_RETURN = 512
HOME = "/"
_KIND = "c2l-login"
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*", re.ASCII)
"""One slash and no second one, printable ASCII, no backslash (which browsers read as a slash) and no space."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What the callback needs."""

    state: str
    nonce: str
    verifier: str
    return_to: str
    expires: int
    """Seconds since the epoch."""

    def __repr__(self) -> str:
        return "Pending(…)"


def begin(return_to: str, *, now: float) -> Pending:
    """Return a new sign-in.

    Args:
        return_to: Where the page wants to be afterwards; "/" instead of anything but a path of ours.
        now: Seconds since the epoch.
    """
    return Pending(
        tokens.new_secret(), tokens.new_secret(), tokens.new_secret(), local_path(return_to), int(now) + LIFETIME
    )


def local_path(text: str) -> str:
    """Return a path of our own pages as it is; "/" for anything that could lead elsewhere."""
    if len(text) > MAX_RETURN or not _PATH.fullmatch(text) or text.startswith("/api/"):
        return HOME
    return text


def seal(sealer: Sealer, pending: Pending) -> str:
    """Return the cookie's value."""
    members = [pending.state, pending.nonce, pending.verifier, pending.return_to, pending.expires]
    return sealer.seal_text(_KIND, json.dumps(members))


def unseal(sealer: Sealer, text: str, *, now: float) -> Pending | None:
    """Return the sign-in in a cookie's value; None when it is none of ours or too old."""
    try:
        pending = Pending(*json.loads(sealer.open_text(_KIND, text)))
    except (SessionRefusedError, ValueError, TypeError):
        return None
    return pending if now < pending.expires else None
