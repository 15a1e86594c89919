"""The memory of requests seen, so that none is taken twice (RFC 9458 §6.5.1)."""

from collections import deque
from typing import Final

from cloudtolocalllm.sealed.errors import BusyError, MisuseError, ReplayedError
from cloudtolocalllm.sealed.limits import MAX_SKEW

MAX_REMEMBERED: Final = 65_536
"""Requests; some 10 MB. At 240 s each that is 270 requests a second, more than one home asks."""


class ReplayGuard:
    """Remembers requests for as long as their date would be accepted.

    Only what a paired device has proved to be its own is put in, so strangers cannot fill it.
    """

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        """Remember nothing yet.

        Args:
            limit: Requests at once.
        """
        self._limit = limit
        self._seen: set[bytes] = set()
        self._order: deque[tuple[float, bytes]] = deque()

    @property
    def size(self) -> int:
        """Requests remembered. There is no __len__, as an empty memory is not a missing one."""
        return len(self._seen)

    def accept(self, enc: bytes, now: float) -> None:
        """Take a request whose date was found to be within the skew.

        Args:
            enc: Its encapsulated secret.
            now: Seconds since the epoch.

        Raises:
            ReplayedError: It was accepted before.
            BusyError: No more can be remembered.
            MisuseError: There is no encapsulated secret.
        """
        if not enc:
            raise MisuseError("expected an encapsulated secret")
        # The date is at most one skew ahead of now, and is refused from one skew after it.
        while self._order and self._order[0][0] <= now:
            self._seen.discard(self._order.popleft()[1])
        if enc in self._seen:
            raise ReplayedError("expected a request that was not received before")
        if len(self._seen) >= self._limit:
            raise BusyError(f"expected at most {self._limit} requests in {2 * MAX_SKEW} s")
        self._seen.add(enc)
        self._order.append((now + 2 * MAX_SKEW + 1, enc))
