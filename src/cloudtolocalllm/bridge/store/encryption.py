"""Encrypts a home store that is there, decrypts it, or gives it another key; while no bridge uses it.

The store is written anew beside its place, read through, and moved there in one step. At every moment there is one
whole store, and a key to it that the note beside it names (see `key_place`): a power cut costs the attempt, and
nothing else.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudtolocalllm.bridge.store import cipher, database, key_place
from cloudtolocalllm.bridge.store.cipher import StoreKey
from cloudtolocalllm.bridge.store.errors import StoreError, StoreInUseError, StoreKeyError
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.runtime import files

SPARE: Final = 16 * 1024 * 1024
"""Bytes that must be free beside the room of the new file."""
LOCK_WAIT: Final = 0.5
"""Seconds that a bridge which is just ending is waited for."""
_IN_USE: Final = "expected that nobody uses the home store; end what does, and try again"


@dataclass(frozen=True, slots=True)
class Done:
    """What an act did."""

    place: str
    """Where the key lies now; "" for a store in the clear."""
    made: bool
    """Whether the key was made."""
    before: str
    """Where the key of earlier back-ups lies, which they need; "" when they are in the clear."""
    clear: tuple[Path, ...]
    """Other copies of the store beside it that are not encrypted."""


def encrypt(path: Path, to: str) -> Done:
    """Encrypt a store in the clear; or see that the one to come is.

    Args:
        path: The store.
        to: Where the key is to lie, `keyring` or `file:PATH`; it is made there if there is none.

    Raises:
        StoreError: It is encrypted, in use or damaged, there is no room, or the key cannot be kept. The store stays.
    """
    cipher.require()
    with _alone(path):
        if database.key_for(path) is not None:
            raise StoreKeyError(
                f"expected {path} in the clear, got one that is encrypted; for another key: "
                "cloudtolocalllm bridge change-store-key"
            )
        key, made = key_place.take_key(to)
        if path.exists():
            _rewrite(path, None, key)
        else:
            _noted(path, key)
        return Done(key.place, made, "", clear_copies(path))


def decrypt(path: Path, place: str = "") -> Done:
    """Decrypt a store. Its key stays, for the back-ups that need it.

    Args:
        path: The store.
        place: Where its key lies, if not where the note says.

    Raises:
        StoreError: As for `encrypt`.
    """
    with _alone(path):
        key = _present_key(path, place)
        if path.exists():
            _rewrite(path, key, None)
        else:
            _noted(path, None)
        return Done("", made=False, before=key.place, clear=())


def change_key(path: Path, to: str, place: str = "") -> Done:
    """Encrypt a store under another key. The present one stays, for the back-ups that need it.

    Args:
        path: The store.
        to: As for `encrypt`.
        place: Where the present key lies, if not where the note says.

    Raises:
        StoreError: As for `encrypt`.
    """
    with _alone(path):
        key = _present_key(path, place)
        if to == key.place:
            raise StoreKeyError(f"expected another place for the new key than {to}, where the present one lies")
        new, made = key_place.take_key(to)
        if path.exists() and new.raw != key.raw:
            _rewrite(path, key, new)
        else:
            _noted(path, new)
        return Done(new.place, made, key.place, clear_copies(path))


def rewrite_into(draft: Path, source: Path, key: StoreKey | None, new: StoreKey | None, *, alone: bool) -> None:
    """Write a store into an empty file under another key, and read that through; it is on disk when the call returns.

    Args:
        draft: The empty file.
        source: The store.
        key: Its key.
        new: The key that the draft gets.
        alone: Whether to keep others from writing to the source meanwhile.

    Raises:
        StoreError: The copy is not the same.
        sqlite3.Error: It cannot be read or written.
        OSError: It cannot be flushed.
    """
    cipher.export(source, key, draft, new, database.TEXT_INDEXES, alone=alone)
    with closing(database.raw(draft, new)) as db, closing(database.raw(source, key)) as old:
        db.execute("PRAGMA synchronous = OFF")  # it is flushed once, when it is whole
        database.forget_words_at_once(db)
        if not database.is_sound(db, thorough=True) or _sizes(db) != _sizes(old):
            raise StoreError("expected a sound copy, got a damaged one; see that the disk is healthy")
    with draft.open("rb+") as file:
        os.fsync(file.fileno())


def swap(path: Path, draft: Path, new: StoreKey | None, old: StoreKey | None) -> None:
    """Move a finished store to its place, and note its key; the note names both until it is there.

    Raises:
        OSError: It cannot be moved.
    """
    if new != old:
        key_place.write_note(path, new, old)
    draft.replace(path)
    files.sync_folder(path.parent)
    key_place.write_note(path, new)


def settle(path: Path, place: str = "") -> None:
    """Tidy up after an act that was broken off; for who alone uses the store.

    Raises:
        StoreError: The key is not to be had.
    """
    _forget(_draft(path))
    if len(key_place.read_note(path)) > 1 and path.exists():
        _noted(path, database.key_for(path, place))


def clear_copies(path: Path) -> tuple[Path, ...]:
    """Return the copies of a store beside it, such as back-ups, that are not encrypted."""
    beside = [*path.parent.glob(f"{path.name}.*"), *database.backups_of(path).glob("*.db")]
    return tuple(
        sorted(
            file
            for file in beside
            if file.is_file()
            and not file.name.endswith(("-wal", "-shm"))
            and (database.has_head(file) or not cipher.may_be_encrypted(file))
        )
    )


# --- parts ---


def _present_key(path: Path, place: str) -> StoreKey:
    key = database.key_for(path, place)
    if key is None:
        raise StoreKeyError(f"expected {path} to be encrypted, got one in the clear")
    return key


def _noted(path: Path, key: StoreKey | None) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_place.write_note(path, key)
    except OSError as error:
        raise StoreError(f"expected to write {key_place.note_path(path)}, got {type(error).__name__}") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep bridges away from a store.

    Raises:
        StoreInUseError: One runs.
    """
    lock = StoreLock(path)
    lock.acquire(wait=LOCK_WAIT)
    try:
        yield
    finally:
        lock.release()


def _rewrite(path: Path, key: StoreKey | None, new: StoreKey | None) -> None:
    draft = _draft(path)
    try:
        _forget(draft)
        with closing(database.connect_with(path, key, aside=False)) as db:  # migrates it, and reads it through
            db.execute("PRAGMA busy_timeout = 500").fetchall()
            # The log goes into the file; this succeeds only when nobody else has it open.
            (mode,) = db.execute("PRAGMA journal_mode = DELETE").fetchone()
        if mode != "delete":
            raise StoreInUseError(_IN_USE)
        before = path.stat()
        _see_room(path)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        rewrite_into(draft, path, key, new, alone=True)
        after = path.stat()
        # A command of the owner can have come and gone: what it wrote would be lost.
        if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
            raise StoreInUseError(_IN_USE)
        swap(path, draft, new, key)
    except sqlite3.Error as error:
        raise database.translated(error, path) from error
    except OSError as error:
        raise StoreError(f"expected to write beside {path}, got {type(error).__name__}") from None
    finally:
        _forget(draft)


def _see_room(path: Path) -> None:
    needed = path.stat().st_size * 11 // 10 + SPARE
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreError(
            f"expected {needed // 1_000_000} MB free on the disk of {path}, as it is written anew beside itself, got "
            f"{free // 1_000_000} MB; make room"
        )


def _sizes(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many rows each table has."""
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    own = [name for name in names if not name.startswith((*database.TEXT_INDEXES, "sqlite_stat"))]
    return {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in own}  # noqa: S608 - its own


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.rewritten")


def _forget(draft: Path) -> None:
    for suffix in ("-journal", "-wal", "-shm", ""):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
