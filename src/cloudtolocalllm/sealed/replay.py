"""The memory of requests seen, so that none is taken twice (RFC 9458 §6.5.1)."""

import heapq
from typing import Final

from cloudtolocalllm.sealed.errors import BusyError, MisuseError, ReplayedError, SkewError
from cloudtolocalllm.sealed.limits import MAX_SKEW

MAX_REMEMBERED: Final = 65_536
"""Requests; some 10 MB. At 240 s each that is 270 requests a second, more than one home asks."""


class ReplayGuard:
    """Remembers requests for as long as their date is accepted, whatever the clock does.

    Only what a paired device has proved to be its own is put in, so strangers cannot fill it.
    """

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        """Remember nothing yet.

        Args:
            limit: Requests at once.
        """
        self._limit = limit
        self._seen: set[bytes] = set()
        self._by_date: list[tuple[int, bytes]] = []
        """A heap: the oldest date first."""
        self._forgotten = 0
        """The latest date of a request that was forgotten."""

    @property
    def size(self) -> int:
        """Requests remembered. There is no __len__, as an empty memory is not a missing one."""
        return len(self._seen)

    def accept(self, enc: bytes, date: int, now: float) -> None:
        """Take a request whose date was found to be within the skew.

        Args:
            enc: Its encapsulated secret.
            date: Its date, in seconds since the epoch.
            now: Seconds since the epoch.

        Raises:
            ReplayedError: It was accepted before.
            SkewError: The clock was set back to a time whose requests are forgotten.
            BusyError: No more can be remembered.
            MisuseError: There is no encapsulated secret.
        """
        if not enc:
            raise MisuseError("expected an encapsulated secret")
        while self._by_date and self._by_date[0][0] + MAX_SKEW < now:
            self._forgotten, aged = heapq.heappop(self._by_date)
            self._seen.discard(aged)
        if enc in self._seen:
            raise ReplayedError("expected a request that was not received before")
        # While the clock goes on, such a date is out of the skew. Whoever sets it back must not bring requests back.
        if date <= self._forgotten:
            raise SkewError("expected a request later than those forgotten; see why this clock was set back")
        if len(self._seen) >= self._limit:
            raise BusyError(f"expected at most {self._limit} requests in {2 * MAX_SKEW} s")
        self._seen.add(enc)
        heapq.heappush(self._by_date, (date, enc))
