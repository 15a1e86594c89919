"""What the manager asks of a proxy: whether it works, and what it has to do."""

from typing import Any

from cloudtolocalllm.runtime.clock import Clock


class Stats:
    """Figures since the start; a live stream counts as activity at every moment."""

    __slots__ = (
        "_clock",
        "_last",
        "asked",
        "bytes_down",
        "bytes_up",
        "in_flight",
        "limited",
        "limited_keys",
        "started",
        "streams_total",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = clock.wall()
        self._last = self.started
        self.asked = clock.monotonic()
        """When the manager last asked, in monotonic seconds."""
        self.in_flight = 0
        self.streams_total = 0
        self.bytes_up = 0
        """Bytes of request content passed to bridges."""
        self.bytes_down = 0
        """Bytes of response content passed to clients."""
        self.limited = 0
        """Requests refused by the user's limits."""
        self.limited_keys = 0
        """Requests refused by a key's own limit."""

    def begin(self) -> None:
        """A request came."""
        self.in_flight += 1
        self.streams_total += 1
        self._last = self._clock.wall()

    def end(self) -> None:
        """A request is over, however it ended."""
        self.in_flight -= 1
        self._last = self._clock.wall()

    def to_json(self, bridges: list[str]) -> dict[str, Any]:
        """Return the document of GET /stats.

        Args:
            bridges: Ids of those attached now.
        """
        return {
            "in_flight": self.in_flight,
            "streams_total": self.streams_total,
            "last_activity": self._clock.wall() if self.in_flight else self._last,
            "bridges": bridges,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "started": self.started,
            "limited": self.limited,
            "limited_keys": self.limited_keys,
        }
