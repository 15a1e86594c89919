"""Bridge credentials: signed by the cloud, bound to a key that only the bridge has (RFC 7800 `cnf`), 30 days long.

A credential that somebody else comes by is worth nothing: each use needs a proof by the bridge's key (`auth.dpop`).
Nothing is looked up to verify one; what was revoked before its time, `api.revocations` knows.
"""

import re
from dataclasses import dataclass

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.signing import KeyRing, TokenRefusedError

TYP = "c2l-bridge+jwt"
LIFETIME = 30 * 24 * 3600
"""Seconds. The bridge renews at half of it, so it may be off for two weeks at any time."""

_BRIDGE = re.compile(r"[a-z2-7]{12}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BridgeCredential:
    """What a credential says. Times are seconds since the epoch."""

    bridge: str
    user: str
    thumbprint: str
    """RFC 7638, of the key that it is bound to."""
    issued: int
    expires: int


def new_bridge_id() -> str:
    """Return an id for a new bridge: 60 random bits."""
    return tokens.random_id(tokens.ID_LENGTH)


def issue(
    ring: KeyRing, *, bridge: str, user: str, thumbprint: str, now: float, lifetime: float = LIFETIME
) -> tuple[str, BridgeCredential]:
    """Return a new credential's text and what it says.

    Args:
        ring: The cloud's signing keys.
        bridge: Whose it is.
        user: Whose the bridge is.
        thumbprint: Of the bridge's public key.
        now: Seconds since the epoch.
        lifetime: Seconds.
    """
    claims = BridgeCredential(bridge, user, thumbprint, int(now), int(now + lifetime))
    return ring.sign(
        {
            "sub": claims.bridge,
            "usr": claims.user,
            "cnf": {"jkt": claims.thumbprint},
            "iat": claims.issued,
            "exp": claims.expires,
        },
        typ=TYP,
    ), claims


def verify(ring: KeyRing, text: str, *, now: float) -> BridgeCredential:
    """Return what a credential says that holds. It is still to be proven that its sender has the key.

    Args:
        ring: The cloud's signing keys.
        text: As received.
        now: Seconds since the epoch.

    Raises:
        TokenRefusedError: Forged, malformed, of another kind, or expired.
    """
    claims = ring.verify(text, typ=TYP, now=now)
    if now >= claims["exp"]:  # the leeway is for a replica's clock that is behind when a credential is issued
        raise TokenRefusedError("expired")
    bridge, user, confirmation = claims.get("sub"), claims.get("usr"), claims.get("cnf")
    thumbprint = confirmation.get("jkt") if isinstance(confirmation, dict) else None
    for value, shape in ((bridge, _BRIDGE), (user, _USER), (thumbprint, _THUMBPRINT)):
        if not isinstance(value, str) or not shape.fullmatch(value):
            raise TokenRefusedError("expected sub, usr and cnf.jkt")
    return BridgeCredential(str(bridge), str(user), str(thumbprint), claims["iat"], claims["exp"])
