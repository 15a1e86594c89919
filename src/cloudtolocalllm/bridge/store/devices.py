"""The devices that may use this home: their public keys, names, and who let them in."""

from collections.abc import Iterable
from dataclasses import dataclass

from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import Tx, check_text
from cloudtolocalllm.sealed.device import device_id

MAX_DEVICES = 256
"""Paired devices."""
MAX_WAITING = 16
"""Devices that wait to be let in; of a further one, the one that waits longest goes."""
WAITING_LIFE = 3_600.0
"""Seconds that a device waits to be let in."""
MAX_NAME = 256
"""Bytes of a name."""
SEEN_NOTED = 300.0
"""Seconds between two notes of when a device was seen."""
BY_LINK = "link"
BY_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Device:
    """A device. Times are seconds since the epoch."""

    id: str
    """Base64url of the SHA-256 of its public key."""
    name: str
    paired: bool
    """Whether it was let in; else it waits."""
    approved_by: str
    """A device's id, "link" for one that came by a pairing link, "local" for one let in at the machine itself."""
    added: float
    last_seen: float | None


_COLUMNS = "SELECT id, name, state, approved_by, added, last_seen FROM devices"


def _made(row: tuple[str, str, str, str, float, float | None]) -> Device:
    id_, name, state, approved_by, added, last_seen = row
    return Device(id_, name, state == "paired", approved_by, added, last_seen)


def all_of(tx: Tx) -> list[Device]:
    """Return every device, the oldest first; one that has waited too long is not there any more."""
    rows = tx.all(f"{_COLUMNS} WHERE state = 'paired' OR added > ? ORDER BY added, id", tx.now - WAITING_LIFE)
    return [_made(row) for row in rows]


def get(tx: Tx, id_: str) -> Device:
    """Return a device.

    Raises:
        NotHereError: There is none.
    """
    row = tx.one(f"{_COLUMNS} WHERE id = ? AND (state = 'paired' OR added > ?)", id_, tx.now - WAITING_LIFE)
    if row is None:
        raise NotHereError("expected the id of a device; it may have been removed")
    return _made(row)


def points(tx: Tx) -> dict[str, bytes]:
    """Return the public keys of the paired devices by their ids; a row whose id is not its key's is none."""
    rows = tx.all("SELECT id, point FROM devices WHERE state = 'paired'")
    return {id_: bytes(point) for id_, point in rows if device_id(bytes(point)) == id_}


def pair(tx: Tx, point: bytes, name: str, *, approved_by: str) -> Device:
    """Let a device in that has shown the secret of a pairing link, or that was approved.

    Raises:
        ConflictError: It was removed before, so that it needs a new key; or there are too many.
    """
    id_ = device_id(point)
    _refuse_removed(tx, id_)
    name = check_text(name, MAX_NAME, "a name")
    others = tx.one("SELECT count(*) FROM devices WHERE state = 'paired' AND id <> ?", id_)[0]
    if others >= MAX_DEVICES:
        raise ConflictError(f"expected at most {MAX_DEVICES} devices; remove one first")
    tx.run(
        "INSERT INTO devices (id, point, name, state, approved_by, added) VALUES (?, ?, ?, 'paired', ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET state = 'paired', approved_by = excluded.approved_by, name = excluded.name "
        "WHERE state = 'waiting'",
        id_, point, name, approved_by, tx.now,
    )  # fmt: skip
    tx.changed("device", id_)
    return get(tx, id_)


def wait(tx: Tx, point: bytes, name: str) -> Device:
    """Keep a device that asks to be let in; of one that is paired already, nothing changes.

    Raises:
        ConflictError: It was removed before, so that it needs a new key.
    """
    id_ = device_id(point)
    _refuse_removed(tx, id_)
    tx.run("DELETE FROM devices WHERE state = 'waiting' AND added <= ?", tx.now - WAITING_LIFE)
    known = tx.one("SELECT 1 FROM devices WHERE id = ?", id_)
    if known is None:
        tx.run(
            "DELETE FROM devices WHERE id IN (SELECT id FROM devices WHERE state = 'waiting' "
            "ORDER BY added DESC LIMIT -1 OFFSET ?)",
            MAX_WAITING - 1,
        )
        tx.insert(
            "INSERT INTO devices (id, point, name, state, added) VALUES (?, ?, ?, 'waiting', ?)",
            id_, point, check_text(name, MAX_NAME, "a name"), tx.now,
        )  # fmt: skip
        tx.changed("device", id_)
    return get(tx, id_)


def approve(tx: Tx, id_: str, *, approved_by: str) -> Device:
    """Let a device in that waits.

    Raises:
        NotHereError: It does not wait any more.
        ConflictError: There are too many.
    """
    row = tx.one("SELECT point, name FROM devices WHERE id = ? AND added > ?", id_, tx.now - WAITING_LIFE)
    if row is None:
        raise NotHereError("expected the id of a device that waits; let it ask again")
    return pair(tx, bytes(row[0]), row[1], approved_by=approved_by)


def rename(tx: Tx, id_: str, name: str) -> Device:
    """Rename a device.

    Raises:
        NotHereError: There is none.
        ConflictError: The name is too long.
    """
    get(tx, id_)
    tx.run("UPDATE devices SET name = ? WHERE id = ?", check_text(name, MAX_NAME, "a name"), id_)
    tx.changed("device", id_)
    return get(tx, id_)


def remove(tx: Tx, id_: str) -> None:
    """Remove a device for good: its key is never let in again. No effect when it is not there."""
    if tx.run("DELETE FROM devices WHERE id = ?", id_):
        tx.run("INSERT OR IGNORE INTO removed_devices (id, removed) VALUES (?, ?)", id_, tx.now)
        tx.changed("device", id_, gone=True)


def forget_all(tx: Tx) -> int:
    """Forget every device, for a new identity; return how many. Each may be paired again, with the key it has.

    So none of them is a removed one; it is counted instead, so that no back-up of before brings them back.
    """
    ids = [row[0] for row in tx.all("SELECT id FROM devices")]
    tx.run("DELETE FROM devices")
    tx.run("UPDATE store SET forgettings = forgettings + 1")
    for id_ in ids:
        tx.changed("device", id_, gone=True)
    return len(ids)


def seen(tx: Tx, ids: Iterable[str]) -> None:
    """Take note that devices were seen now."""
    tx.db.executemany("UPDATE devices SET last_seen = ? WHERE id = ?", [(tx.now, id_) for id_ in ids])


def _refuse_removed(tx: Tx, id_: str) -> None:
    if tx.one("SELECT 1 FROM removed_devices WHERE id = ?", id_) is not None:
        raise ConflictError("expected a device that was not removed; clear its data, so that it makes a new key")
