"""The feed of changes: every one has a number that only rises, so that each client can ask what it missed."""

import asyncio
from dataclasses import dataclass

from cloudtolocalllm.bridge.store.errors import TooOldError
from cloudtolocalllm.bridge.store.tx import Tx

PAGE = 500
"""Changes in one answer at most."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what to read again, never the content itself."""

    n: int
    at: float
    """Seconds since the epoch."""
    kind: str
    id: str
    conversation: str
    """In which conversation; "" for none."""
    gone: bool
    """Whether it is not there any more."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a change."""

    epoch: str
    """Numbers of another epoch mean something else: the store was restored, or is another."""
    changes: tuple[Change, ...]
    newest: int
    """Number of the newest change there is; that of the last one here is less when there are more."""


def epoch(tx: Tx) -> str:
    """Return the store's epoch."""
    return str(tx.one("SELECT epoch FROM store")[0])


def newest(tx: Tx) -> int:
    """Return the number of the newest change."""
    row = tx.one("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
    return int(row[0]) if row is not None else 0


def since(tx: Tx, n: int, of_epoch: str, limit: int = PAGE) -> Changes:
    """Return the changes after number `n`, the oldest first.

    Raises:
        TooOldError: Some of them are forgotten, or `n` is of another epoch; everything is to be read again.
    """
    known, floor = tx.one("SELECT epoch, floor FROM store")
    last = newest(tx)
    if of_epoch != known or not floor <= n <= last:
        raise TooOldError("expected the number of a change that is remembered; read everything again")
    rows = tx.all(
        "SELECT n, at, kind, id, conversation, gone FROM changes WHERE n > ? ORDER BY n LIMIT ?", n, min(limit, PAGE)
    )
    found = tuple(Change(n, at, kind, id_, conversation, bool(gone)) for n, at, kind, id_, conversation, gone in rows)
    return Changes(str(known), found, last)


class ChangeBell:
    """Wakes who waits for the next change; any number may wait, and it costs nothing when nobody does."""

    def __init__(self) -> None:
        self.newest = 0
        self._rung = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ring_from_thread(self, n: int) -> None:
        """Take note of a change, from another thread."""
        try:
            self._loop.call_soon_threadsafe(self.ring, n)
        except RuntimeError:
            return  # the loop has ended, and with it all who wait

    def ring(self, n: int) -> None:
        """Take note of a change."""
        self.newest = max(self.newest, n)
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def wait(self, n: int, seconds: float) -> bool:
        """Wait until there is a change after number `n`; return whether there is one in time."""
        try:
            async with asyncio.timeout(seconds):
                while self.newest <= n:
                    await self._rung.wait()
        except TimeoutError:
            return False
        return True
