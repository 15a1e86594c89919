"""Opens database files, in the clear by the standard library or encrypted by SQLCipher, and turns one into the other.

SQLCipher encrypts each page (AES-256, with HMAC-SHA512) of the file, its log and its journals. What it sorts stays in
memory, as SQLite is told to write no temporary file.
"""

import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloudtolocalllm.bridge.store.errors import StoreKeyError

KEY_BYTES: Final = 32
_FORMAT: Final = 4
"""Of SQLCipher: its page size, ciphers and how it derives keys, whatever later versions prefer."""
_PAGE: Final = 4096
_NOISE: Final = 224
"""Different bytes among the first 4096 of a file above which it may be encrypted: noise has 256, or a few less."""


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The key of an encrypted store: made by chance, so nothing has to be derived from it."""

    raw: bytes = field(repr=False)
    place: str
    """Where it lies, as `key_place` writes it."""

    @property
    def sql(self) -> str:
        """SQLCipher's spelling of a raw key."""
        return f"x'{self.raw.hex()}'"

    @staticmethod
    def new(place: str) -> "StoreKey":
        """Return a key that never was."""
        return StoreKey(secrets.token_bytes(KEY_BYTES), place)


def connect(target: Path | str, key: StoreKey | None, *, timeout: float, uri: bool = False) -> sqlite3.Connection:
    """Open a database file in autocommit mode, for one thread at a time.

    Args:
        target: The file; or its URI.
        key: None for one in the clear.
        timeout: Seconds to wait for a lock.
        uri: Whether `target` is a URI.

    Raises:
        StoreKeyError: The package that opens encrypted ones is not installed.
        sqlite3.Error: It cannot be opened.
    """
    if key is None:
        return sqlite3.connect(target, timeout=timeout, isolation_level=None, check_same_thread=False, uri=uri)
    return _encrypting(target, key, timeout=timeout, uri=uri)


def require() -> None:
    """See that encrypted stores can be opened.

    Raises:
        StoreKeyError: The package is not installed.
    """
    _encrypting(":memory:", None, timeout=0.0).close()


def attach(db: sqlite3.Connection, path: Path, key: StoreKey | None) -> None:
    """Attach another file as `old`; an encrypted one only to a connection that was opened with a key.

    Raises:
        sqlite3.Error: It cannot be attached.
    """
    db.execute("ATTACH ? AS old KEY ?", (str(path), "" if key is None else key.sql))


def export(
    source: Path,
    key: StoreKey | None,
    target: Path,
    target_key: StoreKey | None,
    indexes: tuple[str, ...],
    *,
    alone: bool,
) -> None:
    """Write all that is in a database into another file, which is empty, under another key or none.

    The new file is not flushed, and is no database when this is broken off.

    Args:
        source: The database.
        key: Its key.
        target: The empty file.
        target_key: The key that it gets.
        indexes: Full-text indexes, which are built anew in a form that every SQLite reads: SQLCipher's own is newer
            than the system's may be.
        alone: Whether to keep others from writing to the source meanwhile; then it must be writable.

    Raises:
        StoreKeyError: The package is not installed.
        sqlite3.Error: It cannot be read or written.
    """
    with closing(_encrypting(source, key, timeout=1.0)) as db:
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            db.execute("BEGIN EXCLUSIVE")  # the lock outlives the transaction
            db.execute("COMMIT")
        db.execute("ATTACH ? AS new KEY ?", (str(target), "" if target_key is None else target_key.sql))
        db.execute("PRAGMA new.auto_vacuum = INCREMENTAL")  # must come before the first table
        for pragma in ("application_id", "user_version"):
            (value,) = db.execute(f"PRAGMA main.{pragma}").fetchone()
            db.execute(f"PRAGMA new.{pragma} = {value}")
        db.execute("PRAGMA new.journal_mode = MEMORY").fetchall()
        db.execute("PRAGMA new.synchronous = OFF")
        db.execute("SELECT sqlcipher_export('new')").fetchall()
    with closing(_encrypting(target, target_key, timeout=0.0)) as db:
        db.execute("PRAGMA journal_mode = MEMORY").fetchall()
        db.execute("PRAGMA synchronous = OFF")
        for table in indexes:
            db.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('secure-delete', 0)")  # noqa: S608 - a constant
            db.execute(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")  # noqa: S608 - a constant


def may_be_encrypted(path: Path) -> bool:
    """Tell whether a file that is no database in the clear looks like an encrypted one.

    An encrypted file has no mark: it is noise from its first byte. Text, zeros, or a database that was cut or
    overwritten by something else are told from it; not damage that is noise itself.
    """
    with path.open("rb") as file:
        return len(set(file.read(_PAGE))) > _NOISE


def _encrypting(target: Path | str, key: StoreKey | None, *, timeout: float, uri: bool = False) -> sqlite3.Connection:
    """Open a file by SQLCipher, which reads and writes those in the clear, too."""
    try:
        from cloudtolocalllm.bridge.store import sqlcipher
    except ImportError:
        raise StoreKeyError(
            "expected the package sqlcipher3, with which encrypted home stores are opened, got none; install it: "
            "pip install 'cloudtolocalllm[encryption]'"
        ) from None
    db: sqlite3.Connection = sqlcipher.connect(
        str(target), timeout=timeout, isolation_level=None, check_same_thread=False, uri=uri
    )
    try:
        db.execute("PRAGMA cipher_log_level = NONE").fetchall()  # it would write to stderr what we raise
        db.execute(f"PRAGMA cipher_default_compatibility = {_FORMAT}").fetchall()
        if key is not None:
            db.execute(f'PRAGMA key = "{key.sql}"').fetchall()
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA recursive_triggers = OFF")  # as in the standard library's
    except BaseException:
        db.close()
        raise
    return db
