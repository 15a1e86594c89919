"""The state of an embedded cloud: one SQLite file, which the API and the command line use at the same time.

Nothing is cached here, so what another process writes holds at once. Every call takes some tens of microseconds,
which is why it is done on the loop's own thread; a write can wait up to BUSY_TIMEOUT for another process's. Each
operation is one statement or one transaction begun with IMMEDIATE, and so atomic between processes.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudtolocalllm.api.state import checks, rate
from cloudtolocalllm.api.state.port import Hit, StateError, StateUnavailableError
from cloudtolocalllm.runtime.clock import Clock, SystemClock

VERSION = 1
"""Of the schema, kept in `PRAGMA user_version`."""
BUSY_TIMEOUT = 2.0
"""Seconds that a write waits for another process's."""
SWEEP_INTERVAL = 1.0
"""Seconds between two writes that also erase what has expired."""
SWEEP_WITH_WRITE = 50
"""Expired rows of a table that such a write erases: about a millisecond's work."""
SWEEP = 1_000
"""Expired rows of a table that `sweep` erases."""
_WAL_PAUSE = 0.02

_SCHEMA = (
    "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX entries_expires ON entries(expires)",
    """CREATE TABLE members (
        room TEXT NOT NULL, member TEXT NOT NULL, value BLOB NOT NULL, expires REAL NOT NULL,
        PRIMARY KEY (room, member)) WITHOUT ROWID""",
    "CREATE INDEX members_expires ON members(expires)",
    """CREATE TABLE rates (
        key TEXT PRIMARY KEY, used REAL NOT NULL, at REAL NOT NULL, expires REAL NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX rates_expires ON rates(expires)",
)

_SWEEPS = (
    "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)",
    """DELETE FROM members WHERE (room, member) IN
        (SELECT room, member FROM members WHERE expires <= ? ORDER BY expires LIMIT ?)""",
    "DELETE FROM rates WHERE key IN (SELECT key FROM rates WHERE expires <= ? ORDER BY expires LIMIT ?)",
)

_PUT = """INSERT INTO entries VALUES (:key, :value, :expires)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
    WHERE NOT :only_new OR entries.expires <= :now RETURNING 1"""

_REPLACE = """UPDATE entries SET value = :new, expires = :expires
    WHERE key = :key AND value = :old AND expires > :now RETURNING 1"""

_ADD = """INSERT INTO members SELECT :room, :member, :value, :expires
    WHERE :most IS NULL
        OR EXISTS (SELECT 1 FROM members WHERE room = :room AND member = :member AND expires > :now)
        OR (SELECT count(*) FROM members WHERE room = :room AND expires > :now) < :most
    ON CONFLICT (room, member) DO UPDATE SET value = excluded.value, expires = excluded.expires RETURNING 1"""

_REMOVE = "DELETE FROM members WHERE room = ? AND member = ? RETURNING value, expires"

_RATE = """INSERT INTO rates VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET used = excluded.used, at = excluded.at, expires = excluded.expires"""


class SqliteState:
    """See `State`. One object belongs to one thread."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Open the file; made if there is none yet, its folder with mode 0700 and itself with 0600.

        Args:
            path: The file.
            clock: None for the machine's.

        Raises:
            StateError: It is no database of ours, or another version's.
        """
        self._clock = clock or SystemClock()
        self._next_sweep = 0.0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make the file with the process's umask, and gives its -wal and -shm files the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StateError(f"expected to write to {path}: {error.strerror}") from None
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise StateError(f"expected a database of CloudToLocalLLM in {path}: {error}") from None
        except StateError:
            self._db.close()
            raise
        self._truncated_at = self._db.total_changes

    def _prepare(self, path: Path) -> None:
        self._enter_wal()
        # In WAL mode NORMAL can lose the last commits to a power cut, never the file's integrity.
        self._db.execute("PRAGMA synchronous = NORMAL")
        # What is deleted is overwritten with zeros, so that nothing expired can be read from the file.
        self._db.execute("PRAGMA secure_delete = ON")
        with self._transaction():
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if found == 0 and tables == 0:
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif found != VERSION:
                raise StateError(
                    f"expected state of version {VERSION} in {path}, got {found}: another version of CloudToLocalLLM "
                    "wrote it; run that version, or stop every process of this one and delete the file (which "
                    "forgets pairings under way and revocations; everything else comes back by itself)"
                )

    def _enter_wal(self) -> None:
        """Switch to write-ahead logging, which a new file is in once for all.

        SQLite does not wait here as it does elsewhere: of two processes that make the file, one is told it is busy.
        """
        for _ in range(round(BUSY_TIMEOUT / _WAL_PAUSE)):
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            time.sleep(_WAL_PAUSE)
        self._db.execute("PRAGMA journal_mode = WAL")

    # values

    async def get(self, key: str) -> bytes | None:
        """See `State.get`."""
        checks.check_names(key)
        rows = self._ask("SELECT value FROM entries WHERE key = ? AND expires > ?", (key, self._clock.wall()))
        return rows[0][0] if rows else None

    async def put(self, key: str, value: bytes, ttl: float, *, only_new: bool = False) -> bool:
        """See `State.put`."""
        checks.check_names(key)
        checks.check_value(value)
        checks.check_ttl(ttl)
        now = self._begin_write()
        values = {"key": key, "value": value, "expires": now + ttl, "only_new": only_new, "now": now}
        return bool(self._ask(_PUT, values))

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """See `State.replace`."""
        checks.check_names(key)
        checks.check_value(old)
        checks.check_value(new)
        checks.check_ttl(ttl)
        now = self._begin_write()
        return bool(self._ask(_REPLACE, {"key": key, "old": old, "new": new, "expires": now + ttl, "now": now}))

    async def take(self, key: str) -> bytes | None:
        """See `State.take`."""
        checks.check_names(key)
        now = self._begin_write()
        rows = self._ask("DELETE FROM entries WHERE key = ? RETURNING value, expires", (key,))
        return rows[0][0] if rows and rows[0][1] > now else None

    async def delete(self, key: str) -> bool:
        """See `State.delete`."""
        return await self.take(key) is not None

    # groups

    async def add(self, group: str, member: str, value: bytes, ttl: float, *, limit: int | None = None) -> bool:
        """See `State.add`."""
        checks.check_names(group, member)
        checks.check_value(value)
        checks.check_ttl(ttl)
        checks.check_members_limit(limit)
        now = self._begin_write()
        values = {"room": group, "member": member, "value": value, "expires": now + ttl, "most": limit, "now": now}
        return bool(self._ask(_ADD, values))

    async def remove(self, group: str, member: str) -> bytes | None:
        """See `State.remove`."""
        checks.check_names(group, member)
        now = self._begin_write()
        rows = self._ask(
            "DELETE FROM members WHERE room = ? AND member = ? RETURNING value, expires", (group, member)
        )
        return rows[0][0] if rows and rows[0][1] > now else None

    async def members(self, *groups: str) -> list[dict[str, bytes]]:
        """See `State.members`."""
        checks.check_names(*groups)
        if not groups:
            return []
        found: dict[str, dict[str, bytes]] = {group: {} for group in groups}
        marks = ", ".join("?" * len(found))
        # `marks` is question marks only
        statement = f"SELECT room, member, value FROM members WHERE room IN ({marks}) AND expires > ?"  # noqa: S608
        for room, member, value in self._ask(statement, (*found, self._clock.wall())):
            found[room][member] = value
        return [found[group] for group in groups]

    # rate counters

    async def hit(self, key: str, *, limit: int, window: float, cost: int = 1) -> Hit:
        """See `State.hit`."""
        checks.check_names(key)
        checks.check_rate(limit, window, cost)
        if not cost:
            allowed, level = self._fill(key, limit, window, 0)
            return rate.answer(allowed=allowed, used=level.used, limit=limit, window=window, cost=0)
        self._begin_write()
        with self._available(), self._transaction():
            allowed, level = self._fill(key, limit, window, cost)
            if allowed:
                expires = level.at + rate.life(level.used, limit=limit, window=window)
                self._db.execute(_RATE, (key, level.used, level.at, expires))
        return rate.answer(allowed=allowed, used=level.used, limit=limit, window=window, cost=cost)

    def _fill(self, key: str, limit: int, window: float, cost: int) -> tuple[bool, rate.Level]:
        rows = self._ask("SELECT used, at FROM rates WHERE key = ?", (key,))
        before = rate.Level(*rows[0]) if rows else None
        return rate.fill(before, self._clock.wall(), limit=limit, window=window, cost=cost)

    # upkeep

    async def sweep(self) -> int:
        """See `State.sweep`: at most SWEEP of each kind. Also empties the write-ahead log, which has old values."""
        with self._available():
            erased = self._erase(self._clock.wall(), SWEEP)
            if self._db.total_changes != self._truncated_at:
                self._truncate_log()
        return erased

    async def close(self) -> None:
        """See `State.close`: close the file and leave nothing in its write-ahead log, if nobody else reads it."""
        with contextlib.suppress(sqlite3.Error):  # it may be closed already
            self._truncate_log()
        self._db.close()

    def _begin_write(self) -> float:
        """Return the time, having erased a little of what has expired."""
        now = self._clock.wall()
        if not now < self._next_sweep <= now + SWEEP_INTERVAL:  # also when the clock was set back
            self._next_sweep = now + SWEEP_INTERVAL
            with self._available():
                self._erase(now, SWEEP_WITH_WRITE)
        return now

    def _erase(self, now: float, most: int) -> int:
        return sum(self._db.execute(statement, (now, most)).rowcount for statement in _SWEEPS)

    def _truncate_log(self) -> None:
        """Move the log into the file and cut it to nothing: it has the values as they were before they were erased.

        Without waiting for a process that reads or writes at this moment; the next call will do.
        """
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            ((busy, _, _),) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if not busy:
                self._truncated_at = self._db.total_changes
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT * 1000)}")

    def _ask(self, statement: str, values: tuple[object, ...] | dict[str, object]) -> list[tuple[Any, ...]]:
        """Run a statement to its end, which is when it is committed, and return its rows."""
        with self._available():
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            yield

    @contextlib.contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateUnavailableError(f"expected the state's file to answer: {error}") from None
