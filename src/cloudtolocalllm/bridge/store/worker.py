"""The one thread that uses the database: asyncio hands it work and never waits on the disk itself."""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cloudtolocalllm.bridge.store.database import translated
from cloudtolocalllm.bridge.store.errors import StoreBusyError, StoreError
from cloudtolocalllm.bridge.store.tx import Tx

log = logging.getLogger(__name__)

T = TypeVar("T")

QUEUE_LIMIT = 1024
"""Pieces of work that wait; one more is refused."""
WORK_TIME = 30.0
"""Seconds that one piece of work may take in the database."""
QUEUE_TIME = 60.0
"""Seconds after which work that has not begun is given up."""
STEPS = 5_000
"""Steps of SQLite's machine between two looks at the clock; about a tenth of a millisecond."""


@dataclass(slots=True)
class _Work:
    run: Callable[[Tx], Any]
    write: bool
    done: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    seconds: float
    asked: float


class Worker:
    """Runs pieces of work one after the other, each in a transaction of its own."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], wall: Callable[[], float], *, limit: int = QUEUE_LIMIT
    ) -> None:
        """Make a worker; `start` opens the database.

        Args:
            connect: Opens it; called in the thread.
            wall: The time, in seconds since the epoch.
            limit: Pieces of work that may wait.
        """
        self._connect = connect
        self._wall = wall
        self._limit = limit
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._until = 0.0
        self._ended = True
        self.on_changed: Callable[[int], None] = lambda n: None
        """Called in the thread with the number of the newest change, when there is a new one."""
        self._changed = 0

    async def start(self) -> None:
        """Open the database.

        Raises:
            StoreError: It cannot be opened.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(opened, loop), name="home store", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.close()  # whoever waited for it was cancelled: nobody else would ever end the thread
            raise

    def submit(self, run: Callable[[Tx], T], *, write: bool, seconds: float = WORK_TIME) -> "asyncio.Future[T]":
        """Have a piece of work done in a transaction; return its result to come. Work is done in turn.

        A write is made even when nobody waits for it any more.

        Args:
            run: The work, called in the thread; it must not keep the transaction.
            write: Whether it changes anything.
            seconds: That it may take.

        Raises:
            StoreBusyError: Too much waits.
            StoreError: The store is closed. The result may be one, too: what the work or the database raised.
        """
        if self._ended:
            raise StoreError("expected an open home store, got one that is closed")
        if self._queue.qsize() >= self._limit:
            raise StoreBusyError(f"expected at most {self._limit} things at once from the home store; try again")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Work(run, write, done, loop, seconds, time.monotonic()))
        return done

    async def close(self) -> None:
        """Finish what waits, and close the database."""
        if self._thread is None or self._ended:
            return
        self._ended = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _run(self, opened: "asyncio.Future[Any]", loop: asyncio.AbstractEventLoop) -> None:
        try:
            db = self._connect()
            self._changed = _newest(db)
        except Exception as error:
            self._ended = True
            _answer(opened, loop, error=error)
            return
        db.set_progress_handler(lambda: int(time.monotonic() > self._until), STEPS)
        _answer(opened, loop, result=None)
        try:
            while (work := self._queue.get()) is not None:
                self._take(db, work)
        finally:
            db.close()

    def _take(self, db: sqlite3.Connection, work: _Work) -> None:
        if work.done.cancelled() and not work.write:
            return
        now = time.monotonic()
        if now - work.asked > QUEUE_TIME:
            _answer(work.done, work.loop, error=StoreBusyError("expected the home store to be faster; try again"))
            return
        self._until = now + work.seconds
        try:
            result = self._transact(db, work)
        except sqlite3.Error as error:
            _answer(work.done, work.loop, error=_reason(error))
        except Exception as error:
            _answer(work.done, work.loop, error=error)
        else:
            _answer(work.done, work.loop, result=result)

    def _transact(self, db: sqlite3.Connection, work: _Work) -> Any:
        db.execute("BEGIN IMMEDIATE" if work.write else "BEGIN")
        try:
            result = work.run(Tx(db, self._wall()))
            newest = _newest(db) if work.write else self._changed
            db.execute("COMMIT")
        finally:
            self._until = float("inf")  # a rollback is never broken off
            if db.in_transaction:
                db.execute("ROLLBACK")
        if newest != self._changed:
            self._changed = newest
            self.on_changed(newest)
        return result


def _newest(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return int(row[0]) if row is not None else 0


def _reason(error: sqlite3.Error) -> StoreError:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
        return StoreBusyError("expected the home store to answer in time; ask for less, or try again")
    reason = translated(error)
    # SQLite's own words name tables, never what is in them.
    log.error("the home store failed", extra={"fault": str(error)})
    return reason


def _answer(
    done: "asyncio.Future[Any]",
    loop: asyncio.AbstractEventLoop,
    *,
    result: Any = None,
    error: BaseException | None = None,
) -> None:
    def settle() -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        log.warning("the home store's answer came after the loop had ended")
