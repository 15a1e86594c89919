"""A deadline that moves often: one timer, which looks when it fires whether the deadline has moved on."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` once the time set last has come; moving it later costs no timer."""

    __slots__ = ("_at", "_expired", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """Expire `seconds` from now; None for never."""
        if seconds is None:
            self._at = None
            return
        at = self._at = self._loop.time() + seconds
        timer = self._timer
        if timer is None or timer.when() > at:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        """Never expire, and let go of the timer."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._at = None
            self._expired()
