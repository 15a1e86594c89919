"""How much one client address may ask for: requests by kind of route, and connections.

Each bucket is a GCRA (ITU-T I.371, as most rate limiters use it): one number, the time at which the bucket is full
again. A refused request costs nothing, so a client that waits as long as Retry-After says is served.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from cloudtolocalllm.edge.routes import Route
from cloudtolocalllm.runtime.http1 import Headers

MAX_CLIENTS = 32_768
"""Buckets of one kind: some 6 MB when all are in use."""
SHARED = 4096
"""Buckets that newcomers share while MAX_CLIENTS are in use."""
_WINDOWS = {"s": 1, "min": 60, "h": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|min|h) burst ([1-9][0-9]{0,8})")


class Kind(Enum):
    """Kinds of routes, each with a rate of its own; the value names the policy in RateLimit fields."""

    SIGN_IN = "sign-in"
    API = "api"
    DATA = "data"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in a window, and so many at once."""

    count: int
    unit: str
    """A key of _WINDOWS."""
    burst: int

    @classmethod
    def parse(cls, text: str) -> "Rate | None":
        """Read "30/min burst 20"; "off" gives None.

        Raises:
            ValueError: It is neither.
        """
        if text == "off":
            return None
        found = _RATE.fullmatch(text)
        if found is None:
            raise ValueError("expected a rate as 30/min burst 20 (units s, min, h), or off")
        return cls(int(found[1]), found[2], int(found[3]))

    def __str__(self) -> str:
        return f"{self.count}/{self.unit} burst {self.burst}"

    @property
    def window(self) -> int:
        """Seconds."""
        return _WINDOWS[self.unit]


@dataclass(frozen=True, slots=True)
class Limited:
    """A request that is too many."""

    kind: Kind
    rate: Rate
    wait: float
    """Seconds until one is served again."""
    first: bool
    """Whether this client is refused for the first time in a while: worth an entry in a log."""

    @property
    def fields(self) -> Headers:
        """What tells a client (draft-ietf-httpapi-ratelimit-headers, RFC 9110 §10.2.3)."""
        seconds = max(1, math.ceil(self.wait))
        name = self.kind.value
        return (
            (b"retry-after", b"%d" % seconds),
            (b"ratelimit-policy", f'"{name}";q={self.rate.count};w={self.rate.window}'.encode()),
            (b"ratelimit", f'"{name}";r=0;t={seconds}'.encode()),
        )


class Limits:
    """The buckets of every kind."""

    def __init__(self, rates: Mapping[Kind, Rate | None], now: Callable[[], float]) -> None:
        """Limit by these rates; None for no limit. `now` gives monotonic seconds."""
        self._tables = {kind: _Table(kind, rate) for kind, rate in rates.items() if rate is not None}
        self._now = now

    def take(self, bucket: str, kind: Kind) -> Limited | None:
        """Count a request; return None when it is served."""
        table = self._tables.get(kind)
        return None if table is None else table.take(bucket, self._now())


class _Table:
    """The buckets of one kind.

    A bucket is forgotten only when it is full again, so that no flood from other addresses gives a client back what
    it has used: entries live in two generations, and one that was not charged for as long as an empty bucket takes to
    fill goes with the older. While there is no room, newcomers share buckets by a keyed hash of their address.
    """

    def __init__(self, kind: Kind, rate: Rate) -> None:
        self._kind = kind
        self._rate = rate
        self._interval = rate.window / rate.count
        self._tolerance = self._interval * (rate.burst - 1)
        self._life = self._interval * rate.burst
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._shared = [0.0] * SHARED
        self._told: set[str] = set()
        self._turn = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def take(self, bucket: str, now: float) -> Limited | None:
        if now >= self._turn:
            self._turn_over(now)
        full_at = self._young.get(bucket)
        if full_at is None:
            full_at = self._old.get(bucket)
            if full_at is None and len(self) >= MAX_CLIENTS:
                return self._take_shared(bucket, now)
        start = now if full_at is None or full_at < now else full_at
        if start - now > self._tolerance:
            return self._refuse(bucket, start - now - self._tolerance)
        self._old.pop(bucket, None)
        self._young[bucket] = start + self._interval
        return None

    def _take_shared(self, bucket: str, now: float) -> Limited | None:
        slot = hash(bucket) % SHARED  # Python keys the hash of texts anew in each process
        start = max(now, self._shared[slot])
        if start - now > self._tolerance:
            return self._refuse(bucket, start - now - self._tolerance)
        self._shared[slot] = start + self._interval
        return None

    def _refuse(self, bucket: str, wait: float) -> Limited:
        first = bucket not in self._told and len(self._told) < MAX_CLIENTS
        if first:
            self._told.add(bucket)
        return Limited(self._kind, self._rate, wait, first)

    def _turn_over(self, now: float) -> None:
        # What is in `_old` was last charged before the turn before this one, at least `_life` ago: it is full.
        missed = now >= self._turn + self._life
        self._old = {} if missed else self._young
        self._young = {}
        self._told.clear()
        self._turn = now + self._life


SIGN_IN_PREFIXES = ("/api/auth/sign-in", "/api/auth/oidc/", "/api/bridge/pairing")
NOT_SIGN_IN = ("/api/bridge/pairing/token", "/api/auth/oidc/back-channel-logout")
"""A waiting bridge asks for its token every other second, with a code too long to guess; a provider signs its logouts
and sends those of all users from one address."""
_KINDS = {
    Route.API: Kind.API,
    Route.API_WEBSOCKET: Kind.API,
    Route.DATA: Kind.DATA,
    Route.TUNNEL: Kind.DATA,
    Route.HEALTH: Kind.STATIC,
    Route.STATIC: Kind.STATIC,
    Route.NOTHING: Kind.STATIC,
}


def kind_of(where: Route, path: str) -> Kind:
    """Return whose rate a request counts against.

    Args:
        where: What serves it.
        path: Its path; the API decodes escapes before it routes, so they do not make another route of it here.
    """
    if where is Route.API:
        plain = unquote(path) if "%" in path else path
        if plain.startswith(SIGN_IN_PREFIXES) and plain.rstrip("/") not in NOT_SIGN_IN:
            return Kind.SIGN_IN
    return _KINDS[where]
