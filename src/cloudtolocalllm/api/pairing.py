"""Pairing a bridge with an account: what is asked for, who said yes, and what is handed out for it.

Two ways, both for five minutes: a short code that a person types elsewhere (RFC 8628), and a browser on the same
machine that is sent back to it (RFC 8252 with PKCE, RFC 7636). In both a person who is signed in has to say yes, and
what is handed out is bound to the key that asked. All of it is in the state, so that any replica goes on with it.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from urllib.parse import urlencode, urlsplit

from cloudtolocalllm.api.registry import MAX_BRIDGES, BridgeRecord, Registry, TooManyBridgesError, clean_name
from cloudtolocalllm.api.state import Hit, State
from cloudtolocalllm.auth import credentials, tokens
from cloudtolocalllm.auth.credentials import BridgeCredential
from cloudtolocalllm.auth.signing import KeyRing
from cloudtolocalllm.runtime.clock import Clock

LIFETIME = 300
"""Seconds from the request to the credential."""
INTERVAL = 2
"""Seconds between two questions for a credential (RFC 8628 §3.5)."""
TOLERANCE = 0.5
"""Seconds by which a question may come too early: two that were sent INTERVAL apart may arrive closer."""
STARTS = (20, 300.0)
"""Requests from one address, per seconds."""
ALL_STARTS = (3000, 300.0)
"""Requests from everywhere, per seconds: bounds what waits, some 500 bytes each."""
LOOKS = (30, 3600.0)
"""Looks at requests by one user, right and wrong codes alike, per seconds. There are 20^8 codes: with a thousand
requests waiting all the time, one account that guesses 30 an hour hits one in about 97 years."""
REQUEST_LOOKS = (20, 300.0)
"""Looks at one request by everybody, per seconds."""
ENROLMENTS = (60, 3600.0)
"""Pairings and renewals of one user, per seconds."""

USER_CODE = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 §6.1: no vowels, so that no code is a word, and nothing that looks like a digit."""
_REFERENCE = re.compile(r"[a-z2-7]{26}", re.ASCII)
_CODE = re.compile(rf"[{USER_CODE}]{{8}}", re.ASCII)
_BEARER = re.compile(r"([a-z2-7]{26})\.([A-Za-z0-9_-]{43})", re.ASCII)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PATH = re.compile(r"/[A-Za-z0-9/_-]{0,64}", re.ASCII)


Take = Callable[[], Awaitable[None]]


class Kind(Enum):
    """By which way a bridge asks."""

    DEVICE = "device"
    LOOPBACK = "loopback"


class LimitedError(Exception):
    """Too many in too short a time."""

    def __init__(self, policy: str, hit: Hit, window: float) -> None:
        super().__init__(policy)
        self.policy = policy
        self.hit = hit
        self.window = window
        """Seconds."""


class NoSuchRequestError(Exception):
    """The code is wrong, or the request was answered or has expired: which of them, nobody is told."""


class NotRedeemedError(Exception):
    """No credential is handed out now. The text is for people."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        """A code of RFC 8628 §3.5 or RFC 6749 §5.2."""
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Ask:
    """Who wants to be paired."""

    name: str
    version: str
    address: str
    """Where the request came from, for the person who decides; "" when it is not known."""
    counted: str
    """Under which name requests from there are counted."""
    thumbprint: str
    """Of the key that the credential will be bound to."""


@dataclass(frozen=True, slots=True)
class Request:
    """A pairing that waits, or that was granted and not yet collected. Times are seconds since the epoch."""

    id: str
    kind: str
    name: str
    version: str
    address: str
    thumbprint: str
    requested: float
    expires: float
    user: str = ""
    """Who granted it; empty before."""
    denied: bool = False
    secret: str = ""
    """SHA-256, hex, of what collects it: the device code's, or the authorization code's secret part."""
    user_code: str = ""
    redirect_uri: str = ""
    challenge: str = ""
    state: str = ""

    @property
    def open(self) -> bool:
        """Whether nobody has decided yet."""
        return not self.user and not self.denied


@dataclass(frozen=True, slots=True)
class Paired:
    """A credential that is handed out."""

    bridge_id: str
    credential: str
    expires: int
    """Seconds since the epoch."""


class PairingDesk:
    """Takes requests, shows them, takes decisions, and hands credentials out."""

    def __init__(self, state: State, registry: Registry, ring: KeyRing, clock: Clock) -> None:
        """Make a desk.

        Args:
            state: Where requests wait.
            registry: Gets the bridges.
            ring: Signs the credentials.
            clock: For expiry.
        """
        self._state = state
        self._registry = registry
        self._ring = ring
        self._clock = clock

    # what a bridge asks

    async def begin_device(self, ask: Ask) -> tuple[Request, str]:
        """Take a request that a person finds by a short code; return it and the device code.

        Raises:
            LimitedError: Too many requests.
        """
        secret = tokens.new_secret()
        request = replace(self._new(ask, Kind.DEVICE), secret=_digest(secret))
        await self._may_start(ask.counted)
        while True:
            code = "".join(secrets.choice(USER_CODE) for _ in range(8))
            if await self._state.put(_code_key(code), request.id.encode(), LIFETIME, only_new=True):
                break
        request = replace(request, user_code=f"{code[:4]}-{code[4:]}")
        await self._state.put(_key(request.id), _encode(request), LIFETIME)
        return request, f"{request.id}.{secret}"

    async def begin_loopback(self, ask: Ask, *, redirect_uri: str, challenge: str, state: str) -> Request:
        """Take a request whose answer goes back to the machine that asks, by the browser there.

        Args:
            ask: Who asks.
            redirect_uri: Where it listens, checked by `is_loopback`.
            challenge: PKCE's code challenge, method S256.
            state: Given back as it is.

        Raises:
            LimitedError: Too many requests.
        """
        await self._may_start(ask.counted)
        request = replace(self._new(ask, Kind.LOOPBACK), redirect_uri=redirect_uri, challenge=challenge, state=state)
        await self._state.put(_key(request.id), _encode(request), LIFETIME)
        return request

    # what a person decides

    async def look(self, user: str, reference: str) -> Request:
        """Return the request that waits under a short code or an id.

        Args:
            user: Who looks.
            reference: As typed.

        Raises:
            NoSuchRequestError: There is none that waits.
            LimitedError: Too many looks.
        """
        await self._limit(f"pairing-look/{user}", LOOKS, "pairing-looks")
        id_ = await self._find(reference)
        if id_ is None:
            raise NoSuchRequestError
        await self._limit(f"pairing-looked/{id_}", REQUEST_LOOKS, "pairing-looks")
        value = await self._state.get(_key(id_))
        request = None if value is None else _decode(value)
        if request is None or not request.open:
            raise NoSuchRequestError
        return request

    async def decide(self, user: str, reference: str, *, grant: bool) -> str | None:
        """Grant or deny a request; return where the browser goes then, None for nowhere.

        Args:
            user: Who decides, and whose the bridge becomes.
            reference: Short code or id.
            grant: Whether it may.

        Raises:
            NoSuchRequestError: There is none that waits: of several who decide at once, one does.
            LimitedError: Too many looks.
            TooManyBridgesError: The user has as many bridges as may be.
        """
        request = await self.look(user, reference)
        if grant and len(await self._registry.bridges(user)) >= MAX_BRIDGES:
            raise TooManyBridgesError(f"expected at most {MAX_BRIDGES} bridges, there are as many; remove one first")
        secret = tokens.new_secret()
        decided = replace(request, user=user) if grant else replace(request, denied=True)
        if request.kind == Kind.LOOPBACK.value and grant:
            decided = replace(decided, secret=_digest(secret))
        left = max(1.0, request.expires - self._clock.wall())
        if not await self._state.replace(_key(request.id), _encode(request), _encode(decided), left):
            raise NoSuchRequestError
        if request.kind != Kind.LOOPBACK.value:
            return None
        answer = {"code": f"{request.id}.{secret}"} if grant else {"error": "access_denied"}
        return f"{request.redirect_uri}?{urlencode({**answer, 'state': request.state})}"

    # what a bridge collects

    async def redeem_device(self, device_code: str, thumbprint: str, take: Take) -> Paired:
        """Return the credential for a device code.

        Args:
            device_code: As received.
            thumbprint: Of the key that the asker has just proven to have.
            take: Takes that proof, once it is known that the code is the asker's.

        Raises:
            NotRedeemedError: Not yet, or never.
            LimitedError: The user pairs too many.
        """
        request = await self._presented(device_code, thumbprint, Kind.DEVICE)
        await take()
        if not await self._state.put(f"pairing-poll/{request.id}", b"1", INTERVAL - TOLERANCE, only_new=True):
            raise NotRedeemedError("slow_down", f"Ask again after {INTERVAL + 5} seconds.")
        if request.denied:
            await self._state.delete(_key(request.id))
            raise NotRedeemedError("access_denied", "The pairing was denied.")
        if not request.user:
            raise NotRedeemedError("authorization_pending", "Nobody has confirmed the code yet.")
        return await self._collect(request)

    async def redeem_code(self, code: str, verifier: str, thumbprint: str, take: Take) -> Paired:
        """Return the credential for an authorization code.

        Args:
            code: As received.
            verifier: PKCE's.
            thumbprint: Of the key that the asker has just proven to have.
            take: Takes that proof, once it is known that the code is the asker's.

        Raises:
            NotRedeemedError: Wrong, used or expired.
            LimitedError: The user pairs too many.
        """
        request = await self._presented(code, thumbprint, Kind.LOOPBACK)
        await take()
        computed = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest())
        if not hmac.compare_digest(computed.rstrip(b"=").decode(), request.challenge):
            await self._state.delete(_key(request.id))  # a code is tried once
            raise NotRedeemedError("invalid_grant", "The code verifier does not fit the code challenge.")
        return await self._collect(request)

    # credentials

    async def enrol(self, user: str, name: str, thumbprint: str, version: str | None = None) -> Paired:
        """Make a new bridge of a user.

        Raises:
            TooManyBridgesError: The user has as many as may be.
            LimitedError: The user pairs too many in too short a time.
        """
        await self._limit(f"pairing-enrol/{user}", ENROLMENTS, "pairings")
        now = self._clock.wall()
        bridge = credentials.new_bridge_id()
        text, said = credentials.issue(self._ring, bridge=bridge, user=user, thumbprint=thumbprint, now=now)
        record = BridgeRecord(bridge, user, clean_name(name), now, said.expires, version=version or None)
        await self._registry.enrol(record)
        return Paired(bridge, text, said.expires)

    async def renew(self, credential: BridgeCredential) -> Paired:
        """Return a new credential for a bridge that has just proven to hold this one.

        Raises:
            LimitedError: The user renews too many in too short a time.
        """
        await self._limit(f"pairing-enrol/{credential.user}", ENROLMENTS, "pairings")
        text, said = credentials.issue(
            self._ring,
            bridge=credential.bridge,
            user=credential.user,
            thumbprint=credential.thumbprint,
            now=self._clock.wall(),
        )
        known = await self._registry.find(credential.user, credential.bridge)
        if known is not None:  # else the state was lost, and the bridge's next connection brings its entry back
            await self._registry.enrol(replace(known.record, expires=said.expires))
        return Paired(said.bridge, text, said.expires)

    # --- inside ---

    def _new(self, ask: Ask, kind: Kind) -> Request:
        now = self._clock.wall()
        return Request(
            id=tokens.random_id(26),
            kind=kind.value,
            name=clean_name(ask.name),
            version=ask.version,
            address=ask.address,
            thumbprint=ask.thumbprint,
            requested=now,
            expires=now + LIFETIME,
        )

    async def _may_start(self, counted: str) -> None:
        await self._limit(f"pairing-start/{counted}", STARTS, "pairing-starts")
        await self._limit("pairing-start-all", ALL_STARTS, "pairing-starts")

    async def _limit(self, key: str, rate: tuple[int, float], policy: str) -> None:
        hit = await self._state.hit(key, limit=rate[0], window=rate[1])
        if not hit.allowed:
            raise LimitedError(policy, hit, rate[1])

    async def _find(self, reference: str) -> str | None:
        if _REFERENCE.fullmatch(reference):
            return reference
        code = "".join(c for c in reference.upper() if c not in "- ")[:9]
        if not _CODE.fullmatch(code):
            return None
        id_ = await self._state.get(_code_key(code))
        return None if id_ is None else id_.decode()

    async def _presented(self, code: str, thumbprint: str, kind: Kind) -> Request:
        """Return the request that a secret code belongs to."""
        parts = _BEARER.fullmatch(code)
        value = None if parts is None else await self._state.get(_key(parts[1]))
        if parts is None or value is None:
            raise NotRedeemedError("expired_token", "The code was used or has expired; start the pairing again.")
        request = _decode(value)
        fits = request.kind == kind.value and hmac.compare_digest(_digest(parts[2]), request.secret)
        if not fits or not hmac.compare_digest(request.thumbprint, thumbprint):
            raise NotRedeemedError("invalid_grant", "The code does not fit, or belongs to another key.")
        return request

    async def _collect(self, request: Request) -> Paired:
        # Of several who collect at once, one gets it.
        if await self._state.take(_key(request.id)) is None:
            raise NotRedeemedError("expired_token", "The code was used or has expired; start the pairing again.")
        if request.user_code:
            await self._state.delete(_code_key(request.user_code.replace("-", "")))
        try:
            return await self.enrol(request.user, request.name, request.thumbprint, request.version)
        except TooManyBridgesError as error:
            raise NotRedeemedError("access_denied", f"No more bridges: {error}.") from None


def is_loopback(uri: str) -> bool:
    """Tell whether a redirect URI leads to the browser's own machine and says nothing more (RFC 8252 §7.3)."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme != "http" or host not in _LOOPBACK or not port or not _PATH.fullmatch(parts.path):
        return False
    # Built anew and compared, so that what this function understood is what a browser is sent to.
    shown = f"[{host}]" if host == "::1" else host
    return uri == f"http://{shown}:{port}{parts.path}"


def _key(id_: str) -> str:
    return f"pairing/{id_}"


def _code_key(code: str) -> str:
    return f"pairing-code/{code}"


def _digest(secret: str) -> str:
    return tokens.digest(secret).hex()


def _encode(request: Request) -> bytes:
    return json.dumps(asdict(request), separators=(",", ":"), sort_keys=True).encode()


def _decode(value: bytes) -> Request:
    return Request(**json.loads(value))
