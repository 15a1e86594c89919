"""Back-ups of the home store: made while it is in use, restored while it is not."""

import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from cloudtolocalllm.bridge.store import database
from cloudtolocalllm.bridge.store.errors import StoreError, StoreInUseError, StoreVersionError
from cloudtolocalllm.bridge.store.migrations import NEWEST
from cloudtolocalllm.runtime import files


def backup(path: Path, target: Path | None = None) -> Path:
    """Copy the store, as it is at this moment, into one file of mode 0600.

    Args:
        path: The store; it may be in use.
        target: The new file; None for one in the folder of back-ups beside the store.

    Returns:
        The new file.

    Raises:
        StoreError: There is no store, or the copy could not be made.
    """
    if not path.exists():
        raise StoreError(f"expected a home store in {path}; start the bridge once, or name its folder by --data-dir")
    target = target or database.default_backup(path)
    try:
        with closing(database.connect(path, check=False, aside=False)) as db:
            database.copy(db, target)
    except sqlite3.Error as error:
        raise database.translated(error, path) from error
    except OSError as error:
        raise StoreError(f"expected to write to {target}, got {type(error).__name__}") from None
    return target


def restore(path: Path, source: Path) -> Path | None:
    """Put a back-up in the store's place.

    What was taken away stays taken away: devices removed and keys revoked since the back-up was made, and the number
    of the last key statement. The numbers of changes begin a new epoch, so every client reads everything again.

    Args:
        path: The store; nobody may use it now.
        source: The back-up.

    Returns:
        Where the store is that was there; None when there was none.

    Raises:
        StoreInUseError: The bridge runs.
        StoreError: The back-up is damaged or not one, or it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _read_backup(source, draft)
        present = path.exists()
        if present:
            _take_alone(path)
        database.connect(draft, check=False).close()  # migrates it
        if present:
            _carry_over(draft, path)
        _begin_epoch(draft)
        before = _name_of_present(path)
        database.rename(path, before)
        draft.replace(path)
        files.sync_folder(path.parent)
    except sqlite3.Error as error:
        raise database.translated(error, path) from error
    except OSError as error:
        raise StoreError(f"expected to write to {path}, got {type(error).__name__}") from None
    else:
        return before if present else None
    finally:
        for suffix in ("", "-wal", "-shm"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _name_of_present(path: Path) -> Path:
    name = database.default_backup(path)
    name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return name.with_name(name.name.replace(path.stem, f"{path.stem}-before-restore", 1))


def _read_backup(source: Path, draft: Path) -> None:
    if not source.is_file():
        raise StoreError(f"expected a back-up in {source}, got no file")
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as db:
        try:
            (found,) = db.execute("PRAGMA application_id").fetchone()
            if found != database.APPLICATION_ID or not database.is_sound(db):
                raise sqlite3.DatabaseError("not ours")
            if database.version(db) > NEWEST:
                raise StoreVersionError(f"expected a back-up of version {NEWEST} or older; install the newer program")
            database.copy(db, draft)
        except sqlite3.Error:
            raise StoreError(f"expected a sound back-up of a home store in {source}; try an older one") from None


def _take_alone(path: Path) -> None:
    """See that nobody uses a store, and have all of it in its one file.

    Raises:
        StoreInUseError: Somebody does.
    """
    if not database.has_head(path):
        return  # damaged; that is why it is replaced
    try:
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as db:
            # SQLite leaves the mode WAL only when no other connection is open (https://sqlite.org/wal.html).
            (mode,) = db.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError:
        mode = "wal"
    except sqlite3.DatabaseError:
        return  # damaged; that is why it is replaced
    if mode != "delete":
        raise StoreInUseError("expected that nobody uses the home store; stop the bridge first, then restore")


_CARRY = (
    "INSERT OR IGNORE INTO removed_devices SELECT id, removed FROM old.removed_devices",
    "DELETE FROM devices WHERE id IN (SELECT id FROM removed_devices)",
    """INSERT INTO keys SELECT * FROM old.keys WHERE revoked IS NOT NULL
        ON CONFLICT (id) DO UPDATE SET revoked = coalesce(revoked, excluded.revoked)""",
    "UPDATE store SET statement_seq = max(statement_seq, (SELECT statement_seq FROM old.store))",
)


def _carry_over(draft: Path, path: Path) -> None:
    """Take over from the present store what no back-up may undo, as far as it can be read."""
    if not database.has_head(path):
        return
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        try:
            db.execute("ATTACH ? AS old", (str(path),))
            (known,) = db.execute("SELECT version FROM old.migration_version").fetchone()
        except sqlite3.DatabaseError:
            return
        if known != NEWEST:
            return
        for statement in _CARRY:
            with suppress(sqlite3.DatabaseError):
                db.execute(statement)


def _begin_epoch(draft: Path) -> None:
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.execute("DELETE FROM changes")
        db.execute(
            "UPDATE store SET epoch = lower(hex(randomblob(8))), "
            "floor = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"
        )
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
