"""Takes over the list of API keys that earlier versions kept in a file of its own, `NAME.keys.db`."""

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from cloudtolocalllm.bridge.store.database import rename

log = logging.getLogger(__name__)

_COLUMNS = "id, name, scope, created, expires, last_used, revoked, day, tokens"
_SUFFIX = ".taken-over"


def old_path(path: Path) -> Path:
    """Return where an earlier version kept the keys of the bridge with this home store."""
    return path.with_name(path.name.removesuffix(".home.db") + ".keys.db")


def take_over(db: sqlite3.Connection, path: Path) -> None:
    """Put the keys of an earlier version into the store, then rename their file; no effect without one.

    What was revoked in either stays revoked. It can be done again after it was broken off anywhere.

    Args:
        db: Of the home store, in no transaction.
        path: Of the home store.

    Raises:
        sqlite3.Error: The old file is damaged; which keys were revoked is not known then.
        OSError: It cannot be renamed.
    """
    old = old_path(path)
    if not old.exists():
        return
    db.execute("BEGIN IMMEDIATE")  # another process may be at it
    try:
        if not old.exists():
            return
        with closing(sqlite3.connect(old, isolation_level=None)) as source:
            with suppress(sqlite3.OperationalError):  # in use by an earlier version: its log is renamed with it
                source.execute("PRAGMA journal_mode = DELETE").fetchone()
            rows = source.execute(f"SELECT {_COLUMNS} FROM keys").fetchall()  # noqa: S608 - a constant
        db.executemany(
            f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - a constant
            "ON CONFLICT (id) DO UPDATE SET revoked = coalesce(revoked, excluded.revoked)",
            rows,
        )
        db.execute("COMMIT")
        with suppress(FileNotFoundError):
            rename(old, old.with_name(old.name + _SUFFIX))
        log.info("the list of API keys of an earlier version was taken over", extra={"keys": len(rows)})
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
