"""One bridge a home store.

The lock is SQLite's own on an empty database beside the store: it is the same on every system, and the system drops
it with the process, however that ends. The store's own file could not serve, as the owner's commands write to it
while a bridge runs.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cloudtolocalllm.bridge.store.errors import StoreError, StoreInUseError

WAIT = 2.0
"""Seconds that a lock is waited for: a bridge that is being restarted may still be closing the store."""


class StoreLock:
    """Held while a bridge uses a store."""

    def __init__(self, path: Path) -> None:
        """Name the lock.

        Args:
            path: Of the home store.
        """
        self._store = path
        self._path = lock_path(path)
        self._db: sqlite3.Connection | None = None

    def acquire(self, *, wait: float = WAIT) -> None:
        """Take the lock.

        Raises:
            StoreInUseError: Another bridge has it.
            StoreError: Its file cannot be made.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StoreError(f"expected to write to {self._path}, got {type(error).__name__}") from None
        # Whichever thread ends the bridge may let go of it.
        db = sqlite3.connect(self._path, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            db.close()
            raise StoreInUseError(
                f"expected to be the only bridge that uses {self._store}, got another one that runs; stop it first, "
                "or give this one a folder of its own by --data-dir"
            ) from None
        self._db = db

    def release(self) -> None:
        """Give the lock back; no effect without it."""
        db, self._db = self._db, None
        if db is not None:
            db.close()


def lock_path(path: Path) -> Path:
    """Return the file of a store's lock. It stays when nobody holds it."""
    return path.with_suffix(".lock")


def is_held(path: Path) -> bool:
    """Tell whether a bridge uses a store now.

    Args:
        path: Of the home store.
    """
    file = lock_path(path)
    if not file.exists():
        return False
    with closing(sqlite3.connect(file, timeout=0.0, isolation_level=None)) as db:
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            return True
    return False
