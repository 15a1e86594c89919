"""Encrypted database files: SQLCipher, by the package sqlcipher3, as if it were the standard library's sqlite3.

The package is optional; only `cipher` imports this module. It brings an SQLite of its own. Two SQLites in one process
must never have the same file open: whichever closes it first drops the other's locks (fcntl(2)).
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from sqlcipher3 import dbapi2


def _as_standard(error: Exception) -> sqlite3.Error:
    """Return an error of the package as the standard library's of the same name, which all our callers know."""
    kind = getattr(sqlite3, type(error).__name__, sqlite3.DatabaseError)
    made: sqlite3.Error = kind(str(error))
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        if hasattr(error, name):
            setattr(made, name, getattr(error, name))
    return made


def _standard(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*values: Any, **named: Any) -> Any:
        try:
            return method(*values, **named)
        except dbapi2.Error as error:
            raise _as_standard(error) from None

    return call


class _Cursor(dbapi2.Cursor):  # type: ignore[misc] # the package ships no types
    execute = _standard(dbapi2.Cursor.execute)
    executemany = _standard(dbapi2.Cursor.executemany)
    fetchone = _standard(dbapi2.Cursor.fetchone)
    fetchmany = _standard(dbapi2.Cursor.fetchmany)
    fetchall = _standard(dbapi2.Cursor.fetchall)
    __next__ = _standard(dbapi2.Cursor.__next__)


class _Connection(dbapi2.Connection):  # type: ignore[misc] # the package ships no types
    commit = _standard(dbapi2.Connection.commit)
    rollback = _standard(dbapi2.Connection.rollback)
    backup = _standard(dbapi2.Connection.backup)

    def cursor(self, factory: type = _Cursor) -> Any:
        """Return a cursor of ours; `execute` begins with one, too."""
        return super().cursor(factory)


connect = _standard(lambda target, **options: dbapi2.connect(target, factory=_Connection, **options))
"""As `sqlite3.connect`."""
