"""The API's word to one proxy about one request: who it is and what it may do.

A text of three parts, `v1.CLAIMS.MAC`: base64url JSON and base64url HMAC-SHA256 over `v1.CLAIMS`, under the key of
that one proxy. It has no header and names no algorithm or key, so there is nothing for an attacker to choose.
Standard library only: the proxy imports this module.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

LIFETIME = 60.0
"""Seconds an assertion is valid."""
SKEW = 5.0
"""Seconds by which an assertion may seem to come from the future."""
MAX_LENGTH = 4096

CLIENT = "client"
BRIDGE = "bridge"

SESSION = "session"
KEY = "key"


class AssertionRefusedError(Exception):
    """The assertion does not hold. The text gives the reason for the log; a peer is told only that it was refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may do at most; 0 for no limit of that kind."""

    streams: int = 0
    """Requests under way at once."""
    requests_per_minute: int = 0
    bytes_per_minute: int = 0
    """Bytes of content, both ways together."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Assertion:
    """The claims."""

    instance: str
    """The proxy it is for."""
    user: str
    kind: str
    """CLIENT for a data request, BRIDGE for a tunnel."""
    subject: str
    """The API key's id, the session's id, or the bridge's id."""
    issued: int
    """Seconds since the epoch."""
    expires: int
    bridges: tuple[str, ...] = ()
    """CLIENT: bridges that may serve it, best first."""
    request_id: str = ""
    until: int = 0
    """BRIDGE: when the bridge's credential ends, in seconds since the epoch, and its tunnel with it; 0 for never."""
    via: str = ""
    """CLIENT: SESSION or KEY, by what the user showed who it is."""
    key_requests_per_minute: int = 0
    """CLIENT via KEY: what this key may do at most; 0 for no limit of its own."""
    scope: str = ""
    """CLIENT via KEY: what the home is told of the key, a JSON text that the proxy passes on unread."""
    limits: Limits = NO_LIMITS
    """CLIENT: the user's."""


def mint(claims: Assertion, key: bytes) -> str:
    """Return the assertion's text."""
    value = {
        "iid": claims.instance,
        "usr": claims.user,
        "knd": claims.kind,
        "sub": claims.subject,
        "iat": claims.issued,
        "exp": claims.expires,
        "brs": list(claims.bridges),
        "rid": claims.request_id,
        "unt": claims.until,
        "via": claims.via,
        "krm": claims.key_requests_per_minute,
        "scp": claims.scope,
        "lim": [claims.limits.streams, claims.limits.requests_per_minute, claims.limits.bytes_per_minute],
    }
    signed = b"v1." + _encode(json.dumps(value, separators=(",", ":")).encode())
    return (signed + b"." + _encode(hmac.digest(key, signed, "sha256"))).decode()


def verify(text: str, key: bytes, *, instance: str, kind: str, now: float) -> Assertion:
    """Return the claims of an assertion that holds.

    Args:
        text: As received.
        key: This proxy's key.
        instance: This proxy's id.
        kind: CLIENT or BRIDGE, as the route asks for.
        now: Seconds since the epoch.

    Raises:
        AssertionRefusedError: Malformed, forged, expired, not yet valid, or for another proxy or route.
    """
    if len(text) > MAX_LENGTH:
        raise AssertionRefusedError("too long")
    parts = text.encode("latin-1", "replace").split(b".")
    if len(parts) != 3 or parts[0] != b"v1":
        raise AssertionRefusedError("expected three parts, the first v1")
    mac = hmac.new(key, b"v1." + parts[1], hashlib.sha256).digest()
    if not hmac.compare_digest(_encode(mac), parts[2]):
        raise AssertionRefusedError("the MAC does not match")
    claims = _claims(parts[1])
    if claims.instance != instance:
        raise AssertionRefusedError("for another proxy")
    if claims.kind != kind:
        raise AssertionRefusedError("for another kind of request")
    if not claims.issued - SKEW <= now < claims.expires:
        raise AssertionRefusedError("expired or not yet valid")
    return claims


def manager_token(key: bytes) -> str:
    """Return the bearer token by which the manager, who made the key, asks its proxy for health and figures.

    No assertion can equal it: what an assertion signs begins with "v1.".
    """
    return hmac.digest(key, b"manager", "sha256").hex()


def _claims(part: bytes) -> Assertion:
    try:
        value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
        return Assertion(
            instance=str(value["iid"]),
            user=str(value["usr"]),
            kind=str(value["knd"]),
            subject=str(value["sub"]),
            issued=int(value["iat"]),
            expires=int(value["exp"]),
            bridges=tuple(str(bridge) for bridge in value["brs"]),
            request_id=str(value["rid"]),
            # An API of the version before says nothing of these.
            until=int(value.get("unt", 0)),
            via=str(value.get("via", "")),
            key_requests_per_minute=int(value.get("krm", 0)),
            scope=str(value.get("scp", "")),
            limits=_limits(*value.get("lim", (0, 0, 0))),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise AssertionRefusedError("the claims are malformed") from None


def _limits(streams: object, requests: object, transferred: object) -> Limits:
    return Limits(int(streams), int(requests), int(transferred))  # type: ignore[call-overload] # of any JSON value


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
