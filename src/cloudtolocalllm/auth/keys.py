"""API keys: `c2l_` and a token of the cloud's own ring, sent as `Authorization: Bearer KEY` or `x-api-key: KEY`.

The token says whose the key is and what it may do, so that a forgery is refused without looking anything up. What
voids one before it expires (the cloud's revocations, the list at home) is looked up by its id.
"""

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.scopes import KeyScope as KeyScope
from cloudtolocalllm.auth.signing import MAX_LENGTH, KeyRing, TokenRefusedError
from cloudtolocalllm.runtime.clock import Clock

PREFIX = "c2l_"
TYP = "c2l-key+jwt"
DAY = 86_400.0
DEFAULT_LIFETIME = 90 * DAY
"""Seconds."""
MAX_LIFETIME = 366 * DAY
"""Seconds; a leap year."""
LEEWAY = 5.0
"""Seconds by which two replicas' clocks may differ."""
REMEMBERED = 4096
"""Verified keys that a verifier remembers, about 1 KB each."""

_ID = re.compile(r"[a-z2-7]{12}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """What a key says."""

    id: str
    user: str
    issued: int
    """Seconds since the epoch, as `expires`."""
    expires: int
    scope: KeyScope


def mint_key(ring: KeyRing, *, user: str, scope: KeyScope, lifetime: float, now: float) -> tuple[KeyClaims, str]:
    """Make a new API key.

    Args:
        ring: Whose first key signs it.
        user: Whose it is.
        scope: What it may do.
        lifetime: Seconds, at most MAX_LIFETIME.
        now: Seconds since the epoch.

    Returns:
        What it says, and its text, which is shown to its owner once and never kept or logged.

    Raises:
        ValueError: The lifetime or the user's name is out of bounds.
    """
    if not 1 <= lifetime <= MAX_LIFETIME:
        raise ValueError(f"expected a lifetime between 1 s and {MAX_LIFETIME / DAY:.0f} days")
    if not _USER.fullmatch(user):
        raise ValueError("expected the user to be a pseudonym")
    claims = KeyClaims(tokens.random_id(tokens.ID_LENGTH), user, int(now), int(now + lifetime), scope)
    payload = {
        "jti": claims.id,
        "sub": claims.user,
        "iat": claims.issued,
        "exp": claims.expires,
        **scope.to_json(),
    }
    return claims, PREFIX + ring.sign(payload, typ=TYP)


class KeyVerifier:
    """Reads keys and remembers, by their hash, the ones that hold: a signature is checked once, not per request."""

    def __init__(self, ring: KeyRing, clock: Clock, *, remembered: int = REMEMBERED) -> None:
        """Make a verifier.

        Args:
            ring: The cloud's own.
            clock: For expiry.
            remembered: How many keys at most; of more, the one not seen for longest is forgotten.
        """
        self._ring = ring
        self._clock = clock
        self._limit = remembered
        self._known: OrderedDict[bytes, KeyClaims] = OrderedDict()
        self.refusal = TokenRefusedError("")
        """Why the last refused one was, for the log."""

    def verify(self, text: str) -> KeyClaims | None:
        """Return what a key says; None when it is none of ours, forged, expired or not yet valid."""
        if not text.startswith(PREFIX) or len(text) > len(PREFIX) + MAX_LENGTH:
            self.refusal = TokenRefusedError("not a token of ours")
            return None
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(name)
        if known is not None:
            if known.issued - LEEWAY <= self._clock.wall() < known.expires:
                self._known.move_to_end(name)
                return known
            del self._known[name]
        try:
            claims = _read(self._ring, text[len(PREFIX) :], self._clock.wall())
        except TokenRefusedError as error:
            self.refusal = error
            return None
        # Only what holds is remembered: forgeries, which anybody can make any number of, leave nothing behind.
        self._known[name] = claims
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return claims

    def use(self, ring: KeyRing) -> None:
        """Verify with another ring from now on: keys of a signer that is gone hold no more."""
        self._ring = ring
        self._known.clear()


def _read(ring: KeyRing, token: str, now: float) -> KeyClaims:
    """Return what a token says.

    Raises:
        TokenRefusedError: It does not hold.
    """
    value = ring.verify(token, typ=TYP, now=now, leeway=LEEWAY)
    try:
        claims = KeyClaims(value["jti"], value["sub"], value["iat"], value["exp"], KeyScope.from_json(value))
        if not _ID.fullmatch(claims.id) or not _USER.fullmatch(claims.user):
            raise TokenRefusedError("malformed")
    except (KeyError, TypeError, ValueError):
        raise TokenRefusedError("malformed") from None
    # The leeway is for a replica's clock that is behind when a key is made; an expiry is meant as it stands.
    if not claims.issued < claims.expires <= claims.issued + MAX_LIFETIME or now >= claims.expires:
        raise TokenRefusedError("expired, or meant to hold for too long")
    return claims
