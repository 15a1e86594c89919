"""A loop whose time a test can hold, with real sockets and threads in it."""

import asyncio
import time
from collections.abc import Callable

REAL_DEADLINE = 20.0
"""Seconds of the machine's for anything that is waited for."""


HALF = 0.005
"""Seconds by which time that is held is never at a whole interval: what is due then was due before, or is later."""


class HeldLoop(asyncio.SelectorEventLoop):
    """Its time stands still between `hold` and `release` but for `advance`: timers are due exactly, others never."""

    def __init__(self) -> None:
        """Begin with the machine's time."""
        self._held: float | None = None
        self._behind = 0.0
        super().__init__()

    def time(self) -> float:
        """Return seconds that never go back."""
        return super().time() - self._behind if self._held is None else self._held

    def hold(self, interval: float) -> None:
        """Stop the time, half a step of the tests' before a whole interval."""
        self._held = (int(self.time() / interval) + 2) * interval - HALF

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        assert self._held is not None, "expected time to be held"
        self._held += seconds

    def release(self) -> None:
        """Let it pass by itself again, from where it is."""
        if self._held is not None:
            self._behind = super().time() - self._held
            self._held = None


async def turns(count: int = 3) -> None:
    """Let everything run that is due now."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settled(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so while time stands still: for sockets and threads, never for a timer."""
    late = time.monotonic() + REAL_DEADLINE
    await turns()
    while not condition():
        assert time.monotonic() < late, f"expected {what}"
        time.sleep(0.0005)  # noqa: ASYNC251 - threads want to run, and the loop has nothing to do
        await turns(1)
