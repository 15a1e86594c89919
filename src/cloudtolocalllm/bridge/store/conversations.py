"""Conversations: list, get, edit, delete."""

from dataclasses import dataclass

from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import Tx, check_text, chosen_id

MAX_TITLE = 1024
"""Bytes of a title."""
PAGE = 200
"""Conversations in one answer at most."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a list shows of a conversation. Times are seconds since the epoch."""

    id: str
    title: str
    pinned: bool
    created: float
    updated: float
    leaf: str | None
    """The message at which the active path ends; null for an empty conversation."""


_COLUMNS = """SELECT c.id, c.title, c.pinned, c.created, c.updated, m.id, c.seq
    FROM conversations c LEFT JOIN messages m ON m.seq = c.leaf"""


def _made(row: tuple[str, str, int, float, float, str | None, int]) -> Conversation:
    id_, title, pinned, created, updated, leaf, _ = row
    return Conversation(id_, title, bool(pinned), created, updated, leaf)


def create(tx: Tx, title: str, *, id_: str | None = None, pinned: bool = False) -> Conversation:
    """Begin a conversation; one that was begun with the same id is returned as it is.

    Raises:
        ConflictError: The title or the id is not of its form.
    """
    title = check_text(title, MAX_TITLE, "a title")
    id_ = chosen_id(id_)
    if tx.one("SELECT 1 FROM conversations WHERE id = ?", id_) is None:
        tx.insert(
            "INSERT INTO conversations (id, title, pinned, created, updated) VALUES (?, ?, ?, ?, ?)",
            id_, title, int(pinned), tx.now, tx.now,
        )  # fmt: skip
        tx.changed("conversation", id_)
    return get(tx, id_)


def get(tx: Tx, id_: str) -> Conversation:
    """Return a conversation.

    Raises:
        NotHereError: There is none.
    """
    row = tx.one(f"{_COLUMNS} WHERE c.id = ?", id_)
    if row is None:
        raise NotHereError("expected the id of a conversation; it may have been deleted")
    return _made(row)


def number(tx: Tx, id_: str) -> int:
    """Return a conversation's number inside the store.

    Raises:
        NotHereError: There is none.
    """
    row = tx.one("SELECT seq FROM conversations WHERE id = ?", id_)
    if row is None:
        raise NotHereError("expected the id of a conversation; it may have been deleted")
    return int(row[0])


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the list."""

    conversations: tuple[Conversation, ...]
    after: str | None
    """The id after which the next part begins; null at the end."""


def page(tx: Tx, *, after: str | None = None, limit: int = PAGE) -> Page:
    """Return a part of the list: those that changed last come first.

    Args:
        tx: The transaction.
        after: The last one of the part before; None for the first part.
        limit: How many at most.

    Raises:
        NotHereError: `after` is none any more.
    """
    limit = max(1, min(limit, PAGE))
    where, values = "", ()  # type: tuple[str, tuple[float, ...]]
    if after is not None:
        last = tx.one("SELECT updated, seq FROM conversations WHERE id = ?", after)
        if last is None:
            raise NotHereError("expected the id of a conversation to go on after; begin again")
        where, values = "WHERE (c.updated, c.seq) < (?, ?)", tuple(last)
    rows = tx.all(f"{_COLUMNS} {where} ORDER BY c.updated DESC, c.seq DESC LIMIT ?", *values, limit + 1)
    found = tuple(_made(row) for row in rows[:limit])
    return Page(found, found[-1].id if len(rows) > limit else None)


def edit(tx: Tx, id_: str, *, title: str | None = None, pinned: bool | None = None) -> Conversation:
    """Rename or pin a conversation; what is None stays.

    Raises:
        NotHereError: There is none.
        ConflictError: The title is too long.
    """
    seq = number(tx, id_)
    if title is not None:
        tx.run("UPDATE conversations SET title = ? WHERE seq = ?", check_text(title, MAX_TITLE, "a title"), seq)
    if pinned is not None:
        tx.run("UPDATE conversations SET pinned = ? WHERE seq = ?", int(pinned), seq)
    tx.changed("conversation", id_)
    return get(tx, id_)


def delete(tx: Tx, id_: str) -> None:
    """Delete a conversation with everything in it; no effect when it is not there.

    Raises:
        ConflictError: An answer runs in it.
    """
    row = tx.one("SELECT seq FROM conversations WHERE id = ?", id_)
    if row is None:
        return
    if is_running(tx, row[0]):
        raise ConflictError("expected a conversation in which no answer runs; stop it first")
    erase(tx, row[0], id_)


def erase(tx: Tx, seq: int, id_: str) -> None:
    """Delete a conversation in which nothing runs."""
    tx.run("UPDATE conversations SET leaf = NULL WHERE seq = ?", seq)
    attached = tx.all(
        "SELECT DISTINCT sha256 FROM message_attachments WHERE message IN "
        "(SELECT seq FROM messages WHERE conversation = ?)",
        seq,
    )
    tx.run("DELETE FROM conversations WHERE seq = ?", seq)
    tx.db.executemany(
        "DELETE FROM attachments WHERE sha256 = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM message_attachments WHERE sha256 = ?1)",
        attached,
    )
    tx.changed("conversation", id_, gone=True)


def is_running(tx: Tx, seq: int) -> bool:
    """Tell whether an answer runs in a conversation."""
    return (
        tx.one(
            "SELECT 1 FROM runs WHERE conversation = ? AND state IN ('queued', 'loading', 'streaming') LIMIT 1", seq
        )
        is not None
    )


def touch(tx: Tx, seq: int, id_: str) -> None:
    """Take note that something happened in a conversation."""
    tx.run("UPDATE conversations SET updated = max(updated, ?) WHERE seq = ?", tx.now, seq)
    tx.changed("conversation", id_)
