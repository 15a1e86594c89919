"""What the cloud keeps: users, the hashes of keys and credentials, sign-in links. Nothing that a user said.

One SQLite file. The API and the command line use it at the same time: nothing is cached here, so a key made or
deleted by another process holds at once. Every call takes some ten microseconds, which is why the API calls it on its
loop's thread; a write can wait up to BUSY_TIMEOUT for another process's.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.auth import tokens
from cloudtolocalllm.auth.credentials import mint_credential
from cloudtolocalllm.auth.keys import mint_key
from cloudtolocalllm.auth.links import LIFETIME as LINK_LIFETIME
from cloudtolocalllm.auth.links import mint_link_token
from cloudtolocalllm.runtime.clock import Clock, SystemClock

VERSION = 1
"""Of the schema, kept in `PRAGMA user_version`."""
BUSY_TIMEOUT = 2.0
"""Seconds that a write waits for another process's."""
_WAL_PAUSE = 0.02
MAX_NAME = 100
"""Characters of a key's or a bridge's name."""
MAX_PER_USER = 100
"""Keys, and bridges, of one user."""

_SCHEMA = (
    "CREATE TABLE users (id TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE, name TEXT NOT NULL,
        hash BLOB NOT NULL, created REAL NOT NULL, expires REAL, last_used REAL) WITHOUT ROWID""",
    "CREATE INDEX api_keys_user ON api_keys(user)",
    """CREATE TABLE bridges (
        id TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE, name TEXT NOT NULL,
        hash BLOB NOT NULL, created REAL NOT NULL, last_seen REAL, version TEXT) WITHOUT ROWID""",
    "CREATE INDEX bridges_user ON bridges(user)",
    """CREATE TABLE sign_in_links (
        hash BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
        expires REAL NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE revoked_sessions (id TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID",
)


class StoreError(Exception):
    """The store cannot do it; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key, without its secret. Times are seconds since the epoch."""

    id: str
    user: str
    name: str
    hash: bytes
    created: float
    expires: float | None
    """None for never."""
    last_used: float | None
    """To the minute; None for never."""


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """A paired bridge, without its secret. Times are seconds since the epoch."""

    id: str
    user: str
    name: str
    hash: bytes
    created: float
    last_seen: float | None
    """When it was last connected; None for never."""
    version: str | None
    """What it last said its version was."""


_KEY = "id, user, name, hash, created, expires, last_used"
_BRIDGE = "id, user, name, hash, created, last_seen, version"


class Store:
    """The cloud's state. One object belongs to one thread."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Open the store; made if there is none yet, its folder with mode 0700 and itself with 0600.

        Args:
            path: The file.
            clock: None for the machine's.

        Raises:
            StoreError: It is no database of ours, or a newer version's.
        """
        self._clock = clock or SystemClock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file with the process's umask, and gives its -wal and -shm files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._data_version: int | None = None
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(f"expected a database of CloudToLocalLLM in {path}: {error}") from None
        except StoreError:
            self._db.close()
            raise

    def _prepare(self, path: Path) -> None:
        self._enter_wal()
        # In WAL mode NORMAL can lose the last commits to a power cut, never the file's integrity.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif found != VERSION:
                raise StoreError(
                    f"expected schema {VERSION} in {path}, got {found}: it was written by another version of "
                    "CloudToLocalLLM; run that version or give another data directory"
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

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def changed_elsewhere(self) -> bool:
        """Tell whether another connection wrote to the file since this was last asked."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        before, self._data_version = self._data_version, int(version)
        return self._data_version != before

    # users

    def create_user(self) -> str:
        """Return the id of a new user."""
        user = "u_" + tokens.random_id(20)
        self._db.execute("INSERT INTO users VALUES (?, ?)", (user, self._clock.wall()))
        return user

    def owner(self) -> str:
        """Return the id of the first user, made if there is none yet."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")  # two processes that start at once must agree on the owner
            row = self._db.execute("SELECT id FROM users ORDER BY created, id LIMIT 1").fetchone()
            return str(row[0]) if row else self.create_user()

    def has_user(self, user: str) -> bool:
        """Tell whether there is a user with this id."""
        return self._db.execute("SELECT 1 FROM users WHERE id = ?", (user,)).fetchone() is not None

    # API keys

    def create_key(self, user: str, name: str, *, expires: float | None = None) -> tuple[KeyRecord, str]:
        """Make an API key.

        Args:
            user: Whose.
            name: For people.
            expires: Seconds since the epoch, None for never.

        Returns:
            What is kept, and the key's text, which is not.

        Raises:
            StoreError: The user has MAX_PER_USER already, or there is no such user.
        """
        minted = mint_key()
        now = self._clock.wall()
        self._insert("api_keys", _KEY, (minted.id, user, _name(name), minted.hash, now, expires, None))
        return KeyRecord(minted.id, user, _name(name), minted.hash, now, expires, None), minted.text

    def find_key(self, id_: str) -> KeyRecord | None:
        """Return a key that has not expired, by its id."""
        row = self._db.execute(
            f"SELECT {_KEY} FROM api_keys WHERE id = ? AND (expires IS NULL OR expires > ?)",  # noqa: S608 - a constant
            (id_, self._clock.wall()),
        ).fetchone()
        return KeyRecord(*row) if row else None

    def list_keys(self, user: str) -> list[KeyRecord]:
        """Return a user's keys, oldest first, expired ones too."""
        rows = self._db.execute(
            f"SELECT {_KEY} FROM api_keys WHERE user = ? ORDER BY created, id",  # noqa: S608 - a constant
            (user,),
        )
        return [KeyRecord(*row) for row in rows]

    def delete_key(self, user: str, id_: str) -> bool:
        """Delete a user's key; False when the user has none with this id."""
        return self._db.execute("DELETE FROM api_keys WHERE id = ? AND user = ?", (id_, user)).rowcount > 0

    def touch_keys(self, used: Mapping[str, float]) -> None:
        """Note when keys were last used: seconds since the epoch by key id."""
        self._many("UPDATE api_keys SET last_used = ? WHERE id = ?", [(at, id_) for id_, at in used.items()])

    # bridges

    def create_bridge(self, user: str, name: str) -> tuple[BridgeRecord, str]:
        """Pair a bridge.

        Returns:
            What is kept, and the credential's text, which is not.

        Raises:
            StoreError: The user has MAX_PER_USER already, or there is no such user.
        """
        minted = mint_credential()
        now = self._clock.wall()
        self._insert("bridges", _BRIDGE, (minted.id, user, _name(name), minted.hash, now, None, None))
        return BridgeRecord(minted.id, user, _name(name), minted.hash, now, None, None), minted.text

    def find_bridge(self, id_: str) -> BridgeRecord | None:
        """Return a bridge by its id."""
        row = self._db.execute(f"SELECT {_BRIDGE} FROM bridges WHERE id = ?", (id_,)).fetchone()  # noqa: S608 - a constant
        return BridgeRecord(*row) if row else None

    def list_bridges(self, user: str) -> list[BridgeRecord]:
        """Return a user's bridges, oldest first."""
        rows = self._db.execute(
            f"SELECT {_BRIDGE} FROM bridges WHERE user = ? ORDER BY created, id",  # noqa: S608 - a constant
            (user,),
        )
        return [BridgeRecord(*row) for row in rows]

    def bridge_ids(self) -> set[str]:
        """Return the ids of all bridges."""
        return {row[0] for row in self._db.execute("SELECT id FROM bridges")}

    def rename_bridge(self, user: str, id_: str, name: str) -> bool:
        """Rename a user's bridge; False when the user has none with this id."""
        changed = self._db.execute("UPDATE bridges SET name = ? WHERE id = ? AND user = ?", (_name(name), id_, user))
        return changed.rowcount > 0

    def delete_bridge(self, user: str, id_: str) -> bool:
        """Delete a user's bridge; False when the user has none with this id."""
        return self._db.execute("DELETE FROM bridges WHERE id = ? AND user = ?", (id_, user)).rowcount > 0

    def touch_bridges(self, seen: Iterable[tuple[str, float, str]]) -> None:
        """Note when bridges were last connected: id, seconds since the epoch, version."""
        self._many(
            "UPDATE bridges SET last_seen = ?, version = ? WHERE id = ?",
            [(at, version, id_) for id_, at, version in seen],
        )

    # sign-in links and sessions

    def create_sign_in_link(self, user: str) -> tuple[str, float]:
        """Return the token of a new one-time link and when it dies, in seconds since the epoch."""
        text, hash_ = mint_link_token()
        now = self._clock.wall()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM sign_in_links WHERE expires <= ?", (now,))
            self._db.execute("INSERT INTO sign_in_links VALUES (?, ?, ?)", (hash_, user, now + LINK_LIFETIME))
        return text, now + LINK_LIFETIME

    def use_sign_in_link(self, hash_: bytes) -> str | None:
        """Use a link up and return its user; None when there is none, it expired or was used.

        One statement, so that of two requests at once only one gets the user.
        """
        rows = self._db.execute(
            "DELETE FROM sign_in_links WHERE hash = ? RETURNING user, expires", (hash_,)
        ).fetchall()
        return str(rows[0][0]) if rows and rows[0][1] > self._clock.wall() else None

    def revoke_session(self, id_: str, expires: float) -> None:
        """End a session before its time; forgotten when it would have ended anyway."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM revoked_sessions WHERE expires <= ?", (self._clock.wall(),))
            self._db.execute("INSERT OR IGNORE INTO revoked_sessions VALUES (?, ?)", (id_, expires))

    def is_session_revoked(self, id_: str) -> bool:
        """Tell whether a session was ended before its time."""
        return self._db.execute("SELECT 1 FROM revoked_sessions WHERE id = ?", (id_,)).fetchone() is not None

    def _insert(self, table: str, columns: str, values: tuple[object, ...]) -> None:
        marks = ", ".join("?" * len(values))
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                # `table` and `columns` are constants of this file
                (count,) = self._db.execute(
                    f"SELECT count(*) FROM {table} WHERE user = ?",  # noqa: S608 - constants
                    (values[1],),
                ).fetchone()
                if count >= MAX_PER_USER:
                    raise StoreError(f"expected at most {MAX_PER_USER}, there are {count}; delete one first")
                self._db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608 - constants
        except sqlite3.IntegrityError:
            raise StoreError("there is no such user") from None

    def _many(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        if rows:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)


def _name(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()[:MAX_NAME] or "unnamed"
