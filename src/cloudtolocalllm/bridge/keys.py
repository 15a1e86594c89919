"""The home's own list of the user's API keys: what they are called, what they were used for, which are revoked.

The cloud knows no key, only its own signature. What it says of a key is believed the first time; from then on the
list stands, and a key that is revoked here is refused whatever the cloud says.

It is a table of the home store, mirrored in memory. The local owner's commands write to it while the bridge runs, so
it is looked at for changes before a key is judged. The bridge itself writes by the store's thread and does not wait.
"""

import json
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.auth.scopes import NO_SCOPE, KeyScope
from cloudtolocalllm.bridge.identity import PairingError
from cloudtolocalllm.bridge.store import database
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.errors import StoreError, StoreKeyError
from cloudtolocalllm.bridge.store.old_keys import old_path, take_over
from cloudtolocalllm.bridge.store.tx import Tx
from cloudtolocalllm.bridge.store.watch import RevisionWatch
from cloudtolocalllm.contracts.control import KeyAdded, KeyRevoked
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_KEYS = 4096
"""Keys in the list; a new one more is not taken."""
MAX_NAME = 128
"""Characters of a key's name."""
KEPT_AFTER = 7 * 86_400.0
"""Seconds that an expired key stays in the list."""
UNKNOWN_LIFE = 367 * 86_400.0
"""Seconds for which the revocation of a key that was never met is kept: longer than any key lives."""
USE_NOTED = 60.0
"""Seconds between two notes in the file of a key's last use."""
DAY = 86_400

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_COLUMNS = "id, name, scope, created, expires, last_used, revoked, day, tokens"
Post = Callable[[Callable[[Tx], object], Callable[[bool], None]], None]
"""Makes a change without waiting, and tells whether it is on disk."""


class KeyListError(PairingError):
    """The list beside the credential cannot be opened; the text says how to mend it."""


class KeyListFullError(Exception):
    """There is no room for another key."""


@dataclass(slots=True)
class ListedKey:
    """One key. Times are seconds since the epoch."""

    id: str
    name: str
    """"" for one that this home met before it was told of it."""
    scope: KeyScope
    created: int
    expires: int
    last_used: float | None = None
    revoked: float | None = None
    """When it was revoked; None for never."""
    day: int = 0
    """The day of UTC that `tokens` counts, in days since the epoch."""
    tokens: int = 0
    noted: float = 0.0
    """When `last_used` was last written to the file."""

    def tokens_on(self, now: float) -> int:
        """Return how many tokens were counted on the day of `now`."""
        return self.tokens if self.day == int(now // DAY) else 0


def key_list_path(credential_file: Path) -> Path:
    """Return where the list of the bridge with this credential is."""
    return home_path(credential_file)


class KeyList:
    """The list. Every call takes some ten microseconds, so it is used on the loop's thread."""

    def __init__(self, path: Path, clock: Clock, *, place: str = "") -> None:
        """Open the list, made first if there is none.

        Args:
            path: Of the home store.
            clock: For expiry and days.
            place: Where the key of an encrypted store lies, if not where the note beside it says.

        Raises:
            KeyListError: It cannot be opened or is malformed.
        """
        self._clock = clock
        self._keys: dict[str, ListedKey] = {}
        self._unwritten: Counter[str] = Counter()
        """Ids of keys of which something is not in the file yet, or could not be written."""
        self.post: Post | None = None
        """How to write while the bridge runs; None to write here and wait."""
        self.on_revoked: Callable[[str], None] = lambda key_id: None
        """Called with the id of a key that was not revoked before."""
        reading = path
        try:
            self._db = database.connect(path, place=place, check=False, aside=False)
            self._watch = RevisionWatch(self._db, "keys_revision")
            reading = old_path(path)
            take_over(self._db, path)
            reading = path
            self._watch.look()
            self._db.execute("DELETE FROM keys WHERE expires < ?", (clock.wall() - KEPT_AFTER,))
            self._load()
        except StoreKeyError as error:
            raise KeyListError(str(error)) from None
        except (StoreError, sqlite3.Error, OSError, ValueError) as error:
            raise KeyListError(
                f"expected the list of API keys in {reading} ({type(error).__name__}); restore it from a backup "
                "(cloudtolocalllm home restore FILE), or revoke all API keys in the web app and move it away"
            ) from None

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[ListedKey]:
        return iter(sorted(self._keys.values(), key=lambda key: (key.created, key.id)))

    def find(self, key_id: str) -> ListedKey | None:
        """Return a key."""
        return self._keys.get(key_id)

    def refresh(self) -> None:
        """Take over what other processes wrote."""
        try:
            if self._watch.look():
                self._load()
        except (sqlite3.Error, ValueError):
            log.exception("the list of API keys cannot be read; what is known of it holds")

    def add(self, key_id: str, name: str, scope: KeyScope, *, created: int, expires: int) -> ListedKey:
        """Put a key on the list; of one that is there, only a missing name is taken.

        Raises:
            KeyListFullError: There is no room.
        """
        key = self._keys.get(key_id)
        if key is not None:
            if name and not key.name and key.created:
                key.name = name[:MAX_NAME]
                self._write(key_id, "UPDATE keys SET name = ? WHERE id = ?", (key.name, key_id), tell=True)
            return key
        self._make_room()
        key = ListedKey(key_id, name[:MAX_NAME], scope, created, expires)
        self._insert(key)
        return key

    def revoke(self, key_id: str) -> None:
        """Revoke a key for good, also one that was never met."""
        now = self._clock.wall()
        key = self._keys.get(key_id)
        if key is None:
            try:
                self._make_room()
            except KeyListFullError:
                log.error("no room to note the revocation of an unknown key", extra={"key": key_id})  # noqa: TRY400
                return
            self._insert(ListedKey(key_id, "", NO_SCOPE, 0, int(now + UNKNOWN_LIFE), revoked=now))
        elif key.revoked is None:
            key.revoked = now
            self._write(
                key_id, "UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, key_id), tell=True
            )
        else:
            return
        self.on_revoked(key_id)

    def take(self, message: KeyAdded | KeyRevoked) -> None:
        """Take over what the cloud says of a key."""
        if not _KEY.fullmatch(message.key_id):
            log.warning("the server told of a key whose id is none")
            return
        if isinstance(message, KeyRevoked):
            self.revoke(message.key_id)
            return
        try:
            scope = KeyScope.from_json(json.loads(message.scope))
            self.add(message.key_id, message.name, scope, created=message.created, expires=message.expires)
        except (ValueError, AttributeError, RecursionError):
            log.warning("the server told of a key in a way that is not understood", extra={"key": message.key_id})
        except KeyListFullError:
            log.error("the list of API keys is full", extra={"key": message.key_id})  # noqa: TRY400 - no traceback helps

    def is_written(self, key_id: str) -> bool:
        """Tell whether all that is known of a key is in the file."""
        return not self._unwritten[key_id]

    def used(self, key: ListedKey) -> None:
        """Note that a key was used now."""
        now = key.last_used = self._clock.wall()
        if now - key.noted >= USE_NOTED:
            key.noted = now
            self._write(key.id, "UPDATE keys SET last_used = ? WHERE id = ?", (now, key.id))

    def spend(self, key_id: str, tokens: int) -> None:
        """Count tokens on today's account of a key."""
        key = self._keys.get(key_id)
        if key is None or tokens <= 0:
            return
        now = self._clock.wall()
        key.tokens = key.tokens_on(now) + tokens
        key.day = int(now // DAY)
        self._write(key_id, "UPDATE keys SET day = ?, tokens = ? WHERE id = ?", (key.day, key.tokens, key_id))

    def close(self) -> None:
        """Write what is not yet written, and let go of the file."""
        for key in self._keys.values():
            if key.last_used is not None and key.last_used > key.noted:
                self._write(key.id, "UPDATE keys SET last_used = ? WHERE id = ?", (key.last_used, key.id))
        self._db.close()

    def _make_room(self) -> None:
        if len(self._keys) < MAX_KEYS:
            return
        gone = self._clock.wall() - KEPT_AFTER
        for key in [key for key in self._keys.values() if key.expires < gone]:
            del self._keys[key.id]
        self._write("", "DELETE FROM keys WHERE expires < ?", (gone,))
        if len(self._keys) >= MAX_KEYS:
            raise KeyListFullError

    def _insert(self, key: ListedKey) -> None:
        self._keys[key.id] = key
        values = (key.id, key.name, json.dumps(key.scope.to_json()), key.created, key.expires, key.revoked)
        self._write(
            key.id,
            "INSERT INTO keys (id, name, scope, created, expires, revoked) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET revoked = coalesce(revoked, excluded.revoked)",
            values,
            tell=True,
        )

    def _write(self, key_id: str, statement: str, values: tuple[object, ...], *, tell: bool = False) -> None:
        """Write through; what cannot be written holds in memory as long as this process lives.

        Args:
            key_id: Which key; "" for several.
            statement: The change.
            values: Of its marks.
            tell: Whether the other clients are to see it.
        """

        def work(tx: Tx) -> None:
            tx.run(statement, *values)
            if tell:
                tx.changed("key", key_id)

        if self.post is not None:
            self._unwritten[key_id] += 1
            self.post(work, lambda done: self._written(key_id) if done else None)
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            work(Tx(self._db, self._clock.wall()))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._unwritten[key_id] += 1
            log.exception("the list of API keys cannot be written; see that the disk is not full")
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _written(self, key_id: str) -> None:
        self._unwritten[key_id] -= 1
        if not self._unwritten[key_id]:
            del self._unwritten[key_id]

    def _load(self) -> None:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM keys LIMIT ?", (MAX_KEYS,))  # noqa: S608 - a constant
        loaded: dict[str, ListedKey] = {}
        revoked_now = []
        for id_, name, scope, created, expires, last_used, revoked, day, tokens in rows:
            said = KeyScope.from_json(json.loads(scope))
            key = self._keys.get(id_)
            if key is None:
                key = ListedKey(id_, name, said, created, expires, last_used, revoked, day, tokens, last_used or 0.0)
            else:
                # This process knows better what is not written yet, and it alone counts.
                key.scope, key.created, key.expires = said, created, expires
                if id_ not in self._unwritten:
                    key.name = name
                if revoked is not None and key.revoked is None:
                    key.revoked = revoked
                    revoked_now.append(id_)
            loaded[id_] = key
        for id_ in self._unwritten:
            if id_ in self._keys:
                loaded.setdefault(id_, self._keys[id_])
        self._keys = loaded
        for id_ in revoked_now:
            self.on_revoked(id_)
