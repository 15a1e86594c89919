"""What one user, and each of the user's API keys, may do at most; said in every answer.

The proxy is the user's only one, so counting here is exact however many replicas the API has. Requests are counted
as they come; content where the figures of the proxy count it anyway, and looked at when a request begins or ends:
nothing is done for a token, and an answer that runs is never cut.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math

from cloudtolocalllm.auth.assertion import NO_LIMITS, Assertion, Limits
from cloudtolocalllm.proxy.stats import Stats
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers

WINDOW = 60.0
"""Seconds of every limit that is a rate."""
MAX_KEYS = 256
"""Keys with a limit of their own that are remembered; of more, the one not seen for longest begins anew."""
_LARGEST = 10**15 - 1
"""Largest integer of a structured field (RFC 9651 §3.3.1)."""


class Meter:
    """A leaky bucket used as a meter, which is GCRA: what was used flows off at the rate of the limit.

    So `limit` may come at once and the same over each window on the whole, and no window has an edge to use twice.
    """

    __slots__ = ("_at", "_used")

    def __init__(self, now: float) -> None:
        self._used = 0.0
        self._at = now

    def used(self, limit: int, now: float) -> float:
        """Return how much of the limit is taken.

        Args:
            limit: Per WINDOW.
            now: Seconds of a clock that never goes back.
        """
        self._used = max(0.0, self._used - (now - self._at) * limit / WINDOW)
        self._at = now
        return self._used

    def add(self, amount: int) -> None:
        """Count something that came at the time last given."""
        self._used += amount

    def spread(self, amount: int, limit: int, now: float) -> None:
        """Count something that came evenly since the time last given, of which a part has flowed off already."""
        self._used += amount
        self.used(limit, now)


class Refusal:
    """A limit that is reached."""

    __slots__ = ("detail", "policy", "retry_after")

    def __init__(self, policy: str, detail: str, retry_after: int) -> None:
        self.policy = policy
        """Its name in the RateLimit fields."""
        self.detail = detail
        self.retry_after = retry_after
        """Seconds until another one may come."""


class Limiter:
    """The limits of this proxy's user."""

    __slots__ = ("_bytes", "_clock", "_counted", "_keys", "_policy", "_policy_of", "_requests", "_stats")

    def __init__(self, stats: Stats, clock: Clock) -> None:
        """Make a limiter to which nothing has come yet.

        Args:
            stats: The proxy's figures, which count content and requests under way.
            clock: For the rates.
        """
        self._stats = stats
        self._clock = clock
        now = clock.monotonic()
        self._requests = Meter(now)
        self._bytes = Meter(now)
        self._counted = 0
        """Bytes of the figures that are counted here already."""
        self._keys: dict[str, Meter] = {}
        """The one not seen for longest first."""
        self._policy_of: tuple[Limits, int] = (NO_LIMITS, 0)
        self._policy = b""

    def take(self, claims: Assertion, *, stop: bool = False) -> Refusal | None:
        """Count a request, or say which limit it would exceed; then it counts nowhere.

        Args:
            claims: Whose it is.
            stop: Whether it only stops an exchange, which no limit but that of requests keeps anyone from.
        """
        limits = claims.limits
        now = self._clock.monotonic()
        self._count_bytes(limits.bytes_per_minute, now)
        if not stop:
            if limits.streams and self._stats.in_flight >= limits.streams:
                return Refusal("streams", f"Expected at most {limits.streams} requests under way at once.", 1)
            if limits.bytes_per_minute:
                used = self._bytes.used(limits.bytes_per_minute, now)
                if not _left(used, limits.bytes_per_minute):
                    wait = _wait(used, limits.bytes_per_minute)
                    return Refusal("bytes", f"Expected at most {limits.bytes_per_minute} bytes a minute.", wait)
        per_user, per_key = limits.requests_per_minute, 0 if stop else claims.key_requests_per_minute
        if per_user and not _left(used := self._requests.used(per_user, now), per_user):
            return Refusal("requests", f"Expected at most {per_user} requests a minute.", _wait(used, per_user))
        if per_key:
            key = self._key(claims.subject, now)
            if not _left(used := key.used(per_key, now), per_key):
                detail = f"Expected at most {per_key} requests a minute with this API key."
                return Refusal("key-requests", detail, _wait(used, per_key))
            key.add(1)
        if per_user:
            self._requests.add(1)
        return None

    def ended(self, claims: Assertion) -> None:
        """An exchange is over: count the content that passed since the last look."""
        self._count_bytes(claims.limits.bytes_per_minute, self._clock.monotonic())

    def fields(self, claims: Assertion) -> Headers:
        """Return RateLimit-Policy and RateLimit for an answer to this user's request; none without a limit."""
        limits, per_key = claims.limits, claims.key_requests_per_minute
        if (limits, per_key) != self._policy_of:
            self._policy_of = limits, per_key
            self._policy = _policy(limits, per_key)
        if not self._policy:
            return ()
        now = self._clock.monotonic()
        items = []
        if limits.streams:
            items.append(f'"streams";r={min(max(0, limits.streams - self._stats.in_flight), _LARGEST)}')
        if per_user := limits.requests_per_minute:
            items.append(_item("requests", self._requests.used(per_user, now), per_user))
        if limits.bytes_per_minute:
            items.append(_item("bytes", self._bytes.used(limits.bytes_per_minute, now), limits.bytes_per_minute))
        if per_key:
            items.append(_item("key-requests", self._key(claims.subject, now).used(per_key, now), per_key))
        return ((b"ratelimit-policy", self._policy), (b"ratelimit", ", ".join(items).encode()))

    def _count_bytes(self, limit: int, now: float) -> None:
        total = self._stats.bytes_up + self._stats.bytes_down
        if limit:
            self._bytes.spread(total - self._counted, limit, now)
        self._counted = total

    def _key(self, key: str, now: float) -> Meter:
        meter = self._keys.pop(key, None) or Meter(now)
        self._keys[key] = meter
        if len(self._keys) > MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        return meter


_ROUNDING = 1e-6
"""Of a request: what sums of floating numbers may be off by."""


def _left(used: float, limit: int) -> int:
    """Return how many may still come, as the fields say it and as the decision takes it."""
    return max(0, math.floor(limit - used + _ROUNDING))


def _wait(used: float, limit: int) -> int:
    """Return whole seconds until one more may come, at least one (RFC 9110 §10.2.3 knows no parts)."""
    more = _left(used, limit) + 1 - (limit - used)
    return min(max(1, math.ceil(more * WINDOW / limit)), _LARGEST)


def _item(name: str, used: float, limit: int) -> str:
    """Return a service limit item."""
    text = f'"{name}";r={min(_left(used, limit), _LARGEST)}'
    # "t" is when there will be more than "r"; of an untouched limit there is no more to come.
    return text if used <= _ROUNDING else f"{text};t={_wait(used, limit)}"


def _policy(limits: Limits, per_key: int) -> bytes:
    """Return the list of quota policy items."""
    items = []
    window = round(WINDOW)
    if limits.streams:
        items.append(f'"streams";q={min(limits.streams, _LARGEST)};qu="concurrent-requests"')
    if limits.requests_per_minute:
        items.append(f'"requests";q={min(limits.requests_per_minute, _LARGEST)};w={window}')
    if limits.bytes_per_minute:
        items.append(f'"bytes";q={min(limits.bytes_per_minute, _LARGEST)};w={window};qu="content-bytes"')
    if per_key:
        items.append(f'"key-requests";q={min(per_key, _LARGEST)};w={window}')
    return ", ".join(items).encode()
