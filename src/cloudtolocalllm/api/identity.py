"""Who a request is from."""

from dataclasses import dataclass
from enum import Enum

from cloudtolocalllm.api.browser import AmbiguousError, Fields, cookie_of
from cloudtolocalllm.api.recorder import Recorder
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.auth.credentials import parse_credential
from cloudtolocalllm.auth.keys import parse_key
from cloudtolocalllm.auth.sessions import COOKIE, HOST_COOKIE, Sealer, SessionRefusedError
from cloudtolocalllm.runtime.clock import Clock


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


class Identifier:
    """Checks credentials against the store and the sealing keys."""

    def __init__(self, store: Store, sealer: Sealer, recorder: Recorder, clock: Clock, *, secure: bool) -> None:
        """Make an identifier.

        Args:
            store: Who there is.
            sealer: Opens session cookies.
            recorder: Told which key was used.
            clock: For expiry.
            secure: Whether browsers reach us by HTTPS, which decides the cookie's name.
        """
        self._store = store
        self._sealer = sealer
        self._recorder = recorder
        self._clock = clock
        self.cookie = HOST_COOKIE if secure else COOKIE

    def identify(self, fields: Fields) -> Identity | None:
        """Return who sent these fields; None when nothing shows it.

        A key that is sent wins over a cookie, which the browser adds by itself; one that is wrong does not fall back
        to the cookie. Nothing in a query string counts.

        Raises:
            AmbiguousError: Two different keys or two session cookies were sent.
        """
        text = explicit_credential(fields)
        if text is not None:
            return self._by_token(text)
        cookie = cookie_of(fields, self.cookie)
        return None if cookie is None else self._by_session(cookie)

    def still_holds(self, identity: Identity) -> bool:
        """Tell whether somebody identified earlier would be so now."""
        if identity.expires is not None and identity.expires <= self._clock.wall():
            return False
        match identity.via:
            case Via.SESSION:
                return self._store.has_user(identity.user) and not self._store.is_session_revoked(identity.subject)
            case Via.KEY:
                return self._store.find_key(identity.subject) is not None
            case Via.BRIDGE:
                return self._store.find_bridge(identity.subject) is not None

    def _by_token(self, text: str) -> Identity | None:
        if (key := parse_key(text)) is not None:
            record = self._store.find_key(key.id)
            if record is None or not key.matches(record.hash):
                return None
            self._recorder.key_used(record.id)
            return Identity(Via.KEY, record.user, record.id, record.expires)
        if (credential := parse_credential(text)) is not None:
            bridge = self._store.find_bridge(credential.id)
            if bridge is None or not credential.matches(bridge.hash):
                return None
            return Identity(Via.BRIDGE, bridge.user, bridge.id)
        return None

    def _by_session(self, text: str) -> Identity | None:
        try:
            session = self._sealer.open(text, now=self._clock.wall())
        except SessionRefusedError:
            return None
        identity = Identity(Via.SESSION, session.user, session.id, session.expires)
        # The user may be gone, or the cookie's keys may belong to an older database.
        return identity if self.still_holds(identity) else None


def explicit_credential(fields: Fields) -> str | None:
    """Return the key or credential in Authorization or x-api-key; "" when one is there in no form we know.

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
