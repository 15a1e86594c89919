"""Who a request is from.

Nothing is looked up: keys and sessions carry what they allow, and what was voided before its time is known in memory.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cloudtolocalllm.api.audit import Auditor, Event, Reason, reason_of, request_id
from cloudtolocalllm.api.browser import AmbiguousError, Fields, cookie_of
from cloudtolocalllm.api.revocations import Revocations, blocked_member, bridge_member, key_member
from cloudtolocalllm.auth.keys import KeyClaims, KeyVerifier
from cloudtolocalllm.auth.sessions import COOKIE, HOST_COOKIE, Sealer, Session, SessionRefusedError
from cloudtolocalllm.runtime.clock import Clock

MAX_OPENED = 4096
"""Sessions that are remembered as opened (a page asks several times a minute, and opening costs 100 µs), and keys
that are remembered as used."""


class Via(Enum):
    """By what somebody showed who they are."""

    KEY = "key"
    SESSION = "session"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who showed who they are."""

    via: Via
    user: str
    subject: str
    """The API key's id, the session's id, or the bridge's id."""
    expires: float | None = None
    """Seconds since the epoch; None for never."""
    issued: float = 0.0
    """Seconds since the epoch."""
    key: KeyClaims | None = None
    """KEY: what it allows."""
    session: Session | None = None
    """SESSION: what it tells."""


class BridgeRefusedError(Exception):
    """It is not shown that a bridge asks. The text is for its owner and quotes nothing that was sent."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        """A code for its program (RFC 9449 §7.1), as it stands in WWW-Authenticate."""
        self.detail = detail


class BridgeVerifier(Protocol):
    """Checks that a bridge holds the key that its credential is bound to."""

    async def verify(
        self, fields: Fields, *, method: str, path: str, again: bool = False, attempt: str = ""
    ) -> Identity:
        """Return the bridge that sent these fields.

        Args:
            fields: Of the request, or of the edge's question about it.
            method: Of the request.
            path: Of the request, without query.
            again: Whether it is the edge's second question about one request, for which one proof must do.
            attempt: Drawn at random for this one question, so that it can be asked again when the state did not
                answer: then it is not known whether the proof was taken. "" when it is asked only once.

        Raises:
            BridgeRefusedError: They do not prove it, or it was revoked.
            StateUnavailableError: That cannot be told now.
        """
        ...

    def nonce(self) -> str:
        """Return a nonce for a proof to come."""
        ...


class Identifier:
    """Checks credentials."""

    def __init__(
        self,
        sealer: Sealer,
        keys: KeyVerifier,
        revocations: Revocations,
        clock: Clock,
        *,
        secure: bool,
        auditor: Auditor | None = None,
    ) -> None:
        """Make an identifier.

        Args:
            sealer: Opens session cookies.
            keys: Verifies API keys.
            revocations: What is void.
            clock: For expiry.
            secure: Whether browsers reach us by HTTPS, which decides the cookie's name.
            auditor: Hears of what does not hold, and of keys that are used for the first time; None for nobody.
        """
        self._sealer = sealer
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._auditor = auditor or Auditor(None, service="api", clock=clock)
        self._opened: OrderedDict[str, Session] = OrderedDict()
        self._used: OrderedDict[str, None] = OrderedDict()
        self.cookie = HOST_COOKIE if secure else COOKIE

    def identify(self, fields: Fields) -> Identity | None:
        """Return which person sent these fields; None when nothing shows it.

        A key that is sent wins over a cookie, which the browser adds by itself; one that is wrong does not fall back
        to the cookie. Nothing in a query string counts. Bridges are a `BridgeVerifier`'s affair.

        Raises:
            AmbiguousError: Two different keys or two session cookies were sent.
        """
        text = explicit_credential(fields)
        if text is not None:
            return self._by_key(text, fields)
        cookie = cookie_of(fields, self.cookie)
        return None if cookie is None else self._by_session(cookie, fields)

    def still_holds(self, identity: Identity) -> bool:
        """Tell whether somebody identified earlier would be so now."""
        if identity.expires is not None and identity.expires <= self._clock.wall():
            return False
        if self._revocations.holds(blocked_member(identity.user)):
            return False
        match identity.via:
            case Via.SESSION:
                came_of = identity.session.provider_session if identity.session is not None else ""
                return not self._revocations.voids_session(identity.subject, identity.user, identity.issued, came_of)
            case Via.KEY:
                return not self._revocations.holds(key_member(identity.user, identity.subject))
            case Via.BRIDGE:
                return not self._revocations.holds(bridge_member(identity.subject))

    def _by_key(self, text: str, fields: Fields) -> Identity | None:
        claims = self._keys.verify(text)
        if claims is None:
            self._refused(reason_of(self._keys.refusal), fields)
            return None
        identity = Identity(Via.KEY, claims.user, claims.id, claims.expires, claims.issued, key=claims)
        if not self.still_holds(identity):
            self._refused(Reason.REVOKED, fields, claims.user, claims.id)
            return None
        if claims.id not in self._used:
            self._auditor.record(
                Event.KEY_FIRST_USED, user=claims.user, about=claims.id, request_id=request_id(fields)
            )
        self._used[claims.id] = None
        self._used.move_to_end(claims.id)
        if len(self._used) > MAX_OPENED:
            self._used.popitem(last=False)
        return identity

    def _by_session(self, text: str, fields: Fields) -> Identity | None:
        session = self._opened.get(text)
        if session is None:
            try:
                session = self._sealer.open(text, now=self._clock.wall())
            except SessionRefusedError as error:
                self._refused(reason_of(error), fields)
                return None
            self._opened[text] = session
            if len(self._opened) > MAX_OPENED:
                self._opened.popitem(last=False)
        identity = Identity(Via.SESSION, session.user, session.id, session.expires, session.issued, session=session)
        if not self.still_holds(identity):
            self._refused(Reason.REVOKED, fields, session.user)
            return None
        return identity

    def _refused(self, reason: Reason, fields: Fields, user: str | None = None, about: str | None = None) -> None:
        id_ = request_id(fields)
        self._auditor.record(Event.CREDENTIAL_REFUSED, user=user, reason=reason, about=about, request_id=id_)


def challenge(error: str) -> str:
    """Return the WWW-Authenticate field of a 401 to a bridge (RFC 9449 §7.1)."""
    return f'DPoP error="{error}", algs="Ed25519"'


def is_bridge(fields: Fields) -> bool:
    """Tell whether a request is made with a key-bound credential (RFC 9449 §7.1), as only bridges make them."""
    return fields.get(b"authorization", b"").partition(b" ")[0].lower() == b"dpop"


def explicit_credential(fields: Fields) -> str | None:
    """Return the key in Authorization or x-api-key; "" when one is there in no form we know.

    Raises:
        AmbiguousError: Both fields were sent and differ.
    """
    authorization = fields.get(b"authorization")
    api_key = fields.get(b"x-api-key")
    bearer = None
    if authorization is not None:
        scheme, _, rest = authorization.partition(b" ")
        bearer = rest.strip(b" ") if scheme.lower() == b"bearer" else b""
    if bearer is not None and api_key is not None and bearer != api_key:
        raise AmbiguousError("expected one API key, got different ones in Authorization and x-api-key")
    text = bearer if bearer is not None else api_key
    return None if text is None else text.decode("latin-1")
