"""Opens the file of the home store: made, migrated, checked, and set aside when it is damaged."""

import logging
import os
import secrets
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from caribou.migrate import Database, Error, Migration

from cloudtolocalllm.bridge.store import cipher, key_place
from cloudtolocalllm.bridge.store.cipher import StoreKey
from cloudtolocalllm.bridge.store.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreKeyError,
    StoreVersionError,
)
from cloudtolocalllm.bridge.store.migrations import ALL, NEWEST
from cloudtolocalllm.runtime import files

log = logging.getLogger(__name__)

APPLICATION_ID = 0x63326C68
"""Written into the file's head (`PRAGMA application_id`): "c2lh"."""
BUSY_TIMEOUT = 5.0
"""Seconds that a write waits for another process's, such as `keys revoke`."""
OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
_SECURE_FTS = (3, 42, 0)
"""The first SQLite whose full-text index can forget words at once."""
TEXT_INDEXES = ("title_text", "message_text")
"""Tables of the full-text index."""
_MAGIC = b"SQLite format 3\0"
_LOOKS = 3
"""Looks at the beginning of a store before its key is called another one: it may be written just now."""
_PAUSE = 0.1
"""Seconds between them."""
LEFT_OVER = 10.0
"""Seconds without a change after which a log without its store is one that was left over."""
BACKUPS = "backups"
"""Folder of back-ups beside the store."""


def home_path(credential_file: Path) -> Path:
    """Return where the store of the bridge with this credential is."""
    return credential_file.with_suffix(".home.db")


def connect(path: Path, *, place: str = "", check: bool = True, aside: bool = True) -> sqlite3.Connection:
    """Open the store; made if there is none yet, mode 0600.

    Args:
        path: Its file.
        place: Where its key lies, if it is encrypted and the note beside it does not tell (see `key_place`); else "".
        check: Whether to read the whole file for damage, which takes about a second a gigabyte.
        aside: Whether to set a damaged one aside; only who is sure to be alone with it may.

    Returns:
        A connection in autocommit mode, which any one thread at a time may use.

    Raises:
        StoreDamagedError: It is damaged; if it was set aside, the next call makes a new one.
        StoreVersionError: It is not ours, or a newer program wrote it.
        StoreKeyError: It is encrypted, and its key is not to be had.
        StoreFullError: There is no room.
        StoreError: It cannot be opened.
    """
    return connect_with(path, key_for(path, place), check=check, aside=aside)


def connect_with(path: Path, key: StoreKey | None, *, check: bool = True, aside: bool = True) -> sqlite3.Connection:
    """Open the store as `connect` does, with its key; None for one in the clear."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"expected SQLite {_dotted(OLDEST_SQLITE)} or newer, got {sqlite3.sqlite_version}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path, key)
        path.chmod(0o600)
        return _open(path, key, check=check, aside=aside)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except OSError as error:
        raise StoreError(f"expected to write to {path}, got {type(error).__name__}; see its owner and mode") from None


def key_for(path: Path, place: str = "") -> StoreKey | None:
    """Return the key that opens a store, or is to be the key of one that is made; None for one in the clear.

    Args:
        path: The store, whether there is one yet or not.
        place: As for `connect`.

    Raises:
        StoreKeyError: The key is not to be had, or is another one; or the store is in the clear, but should not be.
        StoreError: The file cannot be read.
    """
    keys = key_place.keys_of(path, place)
    try:
        if not path.exists():
            return keys[0]
        if keys == (None,):
            if not has_head(path) and cipher.may_be_encrypted(path):
                raise StoreKeyError(
                    f"expected to know where the key of {path} lies, which is encrypted, got neither the note "
                    f"{key_place.note_path(path)} nor {key_place.SETTING}; set it to file:PATH. If that store never "
                    "was encrypted, it is damaged: restore a back-up"
                )
            return None
        return _fitting(path, keys)
    except OSError as error:
        raise StoreError(f"expected to read {path}, got {type(error).__name__}; see its owner and mode") from None


def _fitting(path: Path, keys: tuple[StoreKey | None, ...]) -> StoreKey | None:
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        for key in keys:
            if has_head(path, key):
                return key
    places = " or ".join(key.place for key in keys if key is not None)
    if has_head(path):
        raise StoreKeyError(
            f"expected {path} to be encrypted, with the key in {places}, got one in the clear; encrypt it: "
            f"cloudtolocalllm bridge encrypt-store --key {places}. Or unset {key_place.SETTING}"
        )
    if cipher.may_be_encrypted(path):
        raise StoreKeyError(
            f"expected the key of {path} in {places}, got another one: bring back the right one, or say where it "
            f"is by {key_place.SETTING}. If it is the right one, the store is damaged at its beginning: restore a "
            "back-up"
        )
    return keys[0]  # damaged, whatever its key


def _open(path: Path, key: StoreKey | None, *, check: bool, aside: bool) -> sqlite3.Connection:
    if not has_head(path, key):
        raise StoreDamagedError(set_aside(path) if aside else path, backup=newest_backup(path))
    db = raw(path, key)
    try:
        if check and not is_sound(db):
            raise sqlite3.DatabaseError("damaged")  # noqa: TRY301 - treated as what SQLite itself finds
        _identify(db, path)
        migrate(db, path, key)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        # In WAL mode FULL flushes at each commit: what was acknowledged survives a power cut.
        db.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten with zeros.
        db.execute("PRAGMA secure_delete = ON").fetchone()
        db.execute("PRAGMA journal_size_limit = 16777216").fetchone()
    except sqlite3.Error as error:
        db.close()
        if _is_damage(error):
            raise StoreDamagedError(set_aside(path) if aside else path, backup=newest_backup(path)) from error
        raise
    except BaseException:
        db.close()
        raise
    return db


def raw(path: Path, key: StoreKey | None) -> sqlite3.Connection:
    """Open a store's file as it is, for who knows what to do with it."""
    return cipher.connect(path, key, timeout=BUSY_TIMEOUT)


def _make(path: Path, key: StoreKey | None) -> None:
    """Make an empty store beside its place and move it there: a half-made one is never met."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(raw(draft, key)) as db:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # must come before the first table
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _run_migrations(db)
            forget_words_at_once(db)
        _move_leftovers(path, draft)
        if key is not None and not key_place.note_path(path).exists():
            key_place.write_note(path, key)  # so that the owner's commands find the key, too
        try:
            os.link(draft, path)  # refuses where another process was faster
        except FileExistsError:
            return
        except OSError:
            draft.rename(path)  # a file system without links
        files.sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def forget_words_at_once(db: sqlite3.Connection) -> None:
    """Have the full-text index of a store overwrite words that are deleted, where this connection's SQLite can."""
    (found,) = db.execute("SELECT sqlite_version()").fetchone()
    if tuple(map(int, found.split("."))) >= _SECURE_FTS:
        for table in TEXT_INDEXES:
            db.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('secure-delete', 1)")  # noqa: S608 - constants


def _move_leftovers(path: Path, draft: Path) -> None:
    """Move the log of a store away that is not there any more; not one that another process has just begun."""
    with suppress(FileNotFoundError):
        log_file = path.with_name(path.name + "-wal")
        if draft.stat().st_mtime - log_file.stat().st_mtime > LEFT_OVER and not path.exists():
            rename(path, path.with_name(f"{path.name}.left-{_stamp()}"), ("-wal", "-shm"))


def _identify(db: sqlite3.Connection, path: Path) -> None:
    (found,) = db.execute("PRAGMA application_id").fetchone()
    if found != APPLICATION_ID:
        raise StoreVersionError(f"expected a home store in {path}, got another database; move it away")


def version(db: sqlite3.Connection) -> str:
    """Return the version of a store's form."""
    row = db.execute("SELECT version FROM migration_version").fetchone()
    return str(row[0]) if row is not None else "0"


def migrate(db: sqlite3.Connection, path: Path, key: StoreKey | None) -> None:
    """Bring a store to the present form; a copy of the old one is kept beside it first.

    Raises:
        StoreVersionError: A newer program wrote it.
    """
    found = version(db)
    if found == NEWEST:
        return
    if found > NEWEST:
        raise StoreVersionError(
            f"expected a home store of version {NEWEST} or older in {path}, got {found}: a newer CloudToLocalLLM "
            "wrote it; install that one again"
        )
    copy(db, backups_of(path) / f"{path.stem}-before-{NEWEST}-{_stamp()}.db", key)
    _run_migrations(db)


class _Opened(Database):  # type: ignore[misc] # the library ships no types
    """The library's runner on a connection that is open, with our settings."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.conn = db


def _run_migrations(db: sqlite3.Connection) -> None:
    runner = _Opened(db)
    try:
        if not runner.is_version_controlled():
            runner.initialize_version_control()
        runner.upgrade([Migration.from_module(module) for module in ALL])
    except Error as error:
        raise StoreError(f"expected the store's migrations to be sound, got {type(error).__name__}") from error
    finally:
        if db.in_transaction:
            db.rollback()


def has_head(path: Path, key: StoreKey | None = None) -> bool:
    """Tell whether a file begins as a database with this key; SQLite would delete the log beside one that does not.

    SQLite reads it, without locks and without the log. Read through a descriptor of our own, closing that would drop
    every lock that this process has on the file (fcntl(2)), the key list's among them; the next program that closes
    the store would find itself alone with it, and delete the log that the bridge goes on writing to.
    """
    if path.stat().st_size < len(_MAGIC):
        return False
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(cipher.connect(uri, key, timeout=0.0, uri=True)) as db:
        try:
            db.execute("PRAGMA schema_version").fetchone()
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    return True


def is_sound(db: sqlite3.Connection, *, thorough: bool = False) -> bool:
    """Read the whole file for damage; `thorough` compares every index with its table, too."""
    try:
        (said,) = db.execute(f"PRAGMA {'integrity_check' if thorough else 'quick_check'}(1)").fetchone()
        return bool(said == "ok")
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return False
        raise


def copy(source: sqlite3.Connection, target: Path, key: StoreKey | None) -> None:
    """Copy a store as it is at one moment into a new file, mode 0600, on disk when the call returns.

    Args:
        source: The store.
        target: The new file.
        key: Of the store, and so of the copy; SQLite copies pages, and cannot give it another one.

    Raises:
        StoreError: There is such a file, or it cannot be written.
        sqlite3.Error: The store cannot be read.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.exists():
        raise StoreError(f"expected no file {target} yet; choose another name")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(raw(draft, key)) as db:
            source.backup(db)
            db.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without -wal beside it
            if not is_sound(db):
                raise StoreError("expected a sound copy, got a damaged one; see that the disk is healthy")
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
        files.sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged store and what belongs to it; return the new name. Nothing is deleted."""
    aside = path.with_name(f"{path.name}.damaged-{_stamp()}")
    rename(path, aside)
    return aside


def rename(path: Path, new: Path, suffixes: tuple[str, ...] = ("-wal", "-shm", "")) -> None:
    """Rename a store with the log that belongs to it: SQLite would apply a log that stays to whatever comes there."""
    for suffix in suffixes:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(new.with_name(new.name + suffix))


def inspect(path: Path, place: str = "") -> None:
    """Look whether the store is sound, and set it aside if it is damaged, before anybody uses it.

    Raises:
        StoreError: It cannot be opened.
    """
    try:
        connect(path, place=place).close()
    except StoreDamagedError as error:
        log.error("the home store is damaged and was set aside", extra={"fault": str(error)})  # noqa: TRY400 - it tells all


def notice(path: Path) -> str:
    """Return what people are to be told of damaged stores that lie beside this one; "" for nothing."""
    with suppress(OSError):
        for file in sorted(path.parent.glob(f"{path.name}.damaged-*"), reverse=True):
            if not file.name.endswith(("-wal", "-shm")):
                return (
                    f"{StoreDamagedError(file, backup=newest_backup(path))}. Or, to go on without it, move it away."
                )
    return ""


def backups_of(path: Path) -> Path:
    """Return the folder of a store's back-ups."""
    return path.parent / BACKUPS


def newest_backup(path: Path) -> Path | None:
    """Return the newest back-up in the folder beside a store."""
    with suppress(OSError):
        found = [(file.stat().st_mtime, file) for file in backups_of(path).glob("*.db")]
        return max(found)[1] if found else None
    return None


def default_backup(path: Path) -> Path:
    """Return the name of a back-up that is made now."""
    return backups_of(path) / f"{path.stem}-{_stamp()}.db"


def translated(error: sqlite3.Error, path: Path | None = None) -> StoreError:
    """Return an error of SQLite as one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError("expected room on the disk of the home store, got none; make room, or set a quota")
    if _is_damage(error):
        return StoreDamagedError(path or Path("home.db"), backup=newest_backup(path) if path is not None else None)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreInUseError("expected the home store to be free, got one in use by another process; try again")
    return StoreError(f"expected the home store to work, got {getattr(error, 'sqlite_errorname', 'an error')}")


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return type(error) is sqlite3.DatabaseError  # raised by ourselves
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _stamp() -> str:
    # A file's name, so that people find the right one; nothing is decided by it.
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{secrets.token_hex(2)}"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
