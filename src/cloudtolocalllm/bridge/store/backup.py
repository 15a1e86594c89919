"""Back-ups of the home store: made while it is in use, restored while it is not."""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from cloudtolocalllm.bridge.store import cipher, database, encryption, key_place
from cloudtolocalllm.bridge.store.cipher import StoreKey
from cloudtolocalllm.bridge.store.errors import StoreError, StoreInUseError, StoreKeyError, StoreVersionError
from cloudtolocalllm.bridge.store.migrations import NEWEST


def backup(path: Path, target: Path | None = None, *, place: str = "") -> Path:
    """Copy the store, as it is at this moment, into one file of mode 0600, encrypted as the store is.

    Args:
        path: The store; it may be in use.
        target: The new file; None for one in the folder of back-ups beside the store.
        place: Where its key lies, if not where the note says.

    Returns:
        The new file.

    Raises:
        StoreError: There is no store, or the copy could not be made.
    """
    if not path.exists():
        raise StoreError(f"expected a home store in {path}; start the bridge once, or name its folder by --data-dir")
    target = target or database.default_backup(path)
    try:
        key = database.key_for(path, place)
        with closing(database.connect_with(path, key, check=False, aside=False)) as db:
            database.copy(db, target, key)
    except sqlite3.Error as error:
        raise database.translated(error, path) from error
    except OSError as error:
        raise StoreError(f"expected to write to {target}, got {type(error).__name__}") from None
    return target


def restore(path: Path, source: Path, *, place: str = "", source_place: str = "") -> Path | None:
    """Put a back-up in the store's place: encrypted if the store there or the back-up is, with the store's key first.

    What was taken away stays taken away: devices removed, or forgotten for a new identity, and keys revoked since the
    back-up was made, and the number of the last key statement. The numbers of changes begin a new epoch, so every
    client reads everything again.

    Args:
        path: The store; nobody may use it now.
        source: The back-up.
        place: Where the store's key lies, if not where the note says.
        source_place: Where the back-up's key lies, if that is another one.

    Returns:
        Where the store is that was there; None when there was none.

    Raises:
        StoreInUseError: The bridge runs.
        StoreKeyError: The back-up's key, or the store's, is not to be had.
        StoreError: The back-up is damaged or not one, or it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    present = path.exists()
    old = _key_of_present(path, place)
    try:
        key = _read_backup(source, draft, old, source_place)
        if present:
            _take_alone(path, old)
        database.connect_with(draft, key, check=False).close()  # migrates it
        if present:
            _carry_over(draft, key, path, old)
        _begin_epoch(draft, key)
        before = _name_of_present(path)
        database.rename(path, before)
        encryption.swap(path, draft, key, old)
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


def _key_of_present(path: Path, place: str) -> StoreKey | None:
    """Return the key of the store, or that it is to have; of a damaged one the likeliest."""
    try:
        return database.key_for(path, place)
    except StoreKeyError:
        keys = key_place.keys_of(path, place)
        if keys == (None,):
            raise
        return keys[0]


def _read_backup(source: Path, draft: Path, present: StoreKey | None, source_place: str) -> StoreKey | None:
    """Copy a back-up into a draft; return the draft's key."""
    if not source.is_file():
        raise StoreError(f"expected a back-up in {source}, got no file")
    found = _key_of_backup(source, (key_place.read_key(source_place),) if source_place else (present, None))
    key = found if present is None else present
    try:
        with closing(cipher.connect(f"{source.absolute().as_uri()}?mode=ro", found, timeout=5.0, uri=True)) as db:
            (mark,) = db.execute("PRAGMA application_id").fetchone()
            if mark != database.APPLICATION_ID or not database.is_sound(db):
                raise sqlite3.DatabaseError("not ours")
            if database.version(db) > NEWEST:
                raise StoreVersionError(f"expected a back-up of version {NEWEST} or older; install the newer program")
            if key == found:
                database.copy(db, draft, found)
                return key
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        encryption.rewrite_into(draft, source, found, key, alone=False)
    except sqlite3.Error:
        raise StoreError(f"expected a sound back-up of a home store in {source}; try an older one") from None
    return key


def _key_of_backup(source: Path, keys: tuple[StoreKey | None, ...]) -> StoreKey | None:
    for key in keys:
        if database.has_head(source, key):
            return key
    if cipher.may_be_encrypted(source):
        raise StoreKeyError(
            f"expected the key of the back-up {source}, which is encrypted, got none that opens it; say where it is: "
            "cloudtolocalllm home restore --key file:PATH FILE. If that is the right one, the back-up is damaged"
        )
    raise StoreError(f"expected a sound back-up of a home store in {source}; try an older one")


def _take_alone(path: Path, key: StoreKey | None) -> None:
    """See that nobody uses a store, and have all of it in its one file.

    Raises:
        StoreInUseError: Somebody does.
    """
    if not database.has_head(path, key):
        return  # damaged; that is why it is replaced
    try:
        with closing(cipher.connect(path, key, timeout=0.5)) as db:
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
    # Of a back-up from before a new identity, nobody is let in but who was let in again since.
    """DELETE FROM devices WHERE (SELECT forgettings FROM store) < (SELECT forgettings FROM old.store)
        AND id NOT IN (SELECT id FROM old.devices WHERE state = 'paired')""",
    "UPDATE store SET forgettings = max(forgettings, (SELECT forgettings FROM old.store))",
    """INSERT INTO keys SELECT * FROM old.keys WHERE revoked IS NOT NULL
        ON CONFLICT (id) DO UPDATE SET revoked = coalesce(revoked, excluded.revoked)""",
    "UPDATE store SET statement_seq = max(statement_seq, (SELECT statement_seq FROM old.store))",
)


def _carry_over(draft: Path, key: StoreKey | None, path: Path, old: StoreKey | None) -> None:
    """Take over from the present store what no back-up may undo, as far as it can be read."""
    if not database.has_head(path, old):
        return
    with closing(database.raw(draft, key)) as db:
        try:
            cipher.attach(db, path, old)
            (known,) = db.execute("SELECT version FROM old.migration_version").fetchone()
        except sqlite3.DatabaseError:
            return
        if known != NEWEST:
            return
        for statement in _CARRY:
            with suppress(sqlite3.DatabaseError):
                db.execute(statement)


def _begin_epoch(draft: Path, key: StoreKey | None) -> None:
    with closing(database.raw(draft, key)) as db:
        db.execute("DELETE FROM changes")
        db.execute(
            "UPDATE store SET epoch = lower(hex(randomblob(8))), "
            "floor = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"
        )
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
