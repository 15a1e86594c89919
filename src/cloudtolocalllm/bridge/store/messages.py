"""Messages: a tree in each conversation, of which one path is active.

An edit is a new sibling of the edited message, an answer made anew is a new sibling of the first one; nothing is
overwritten. The active path goes from a message without parent to the conversation's leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cloudtolocalllm.bridge.store import conversations
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import Tx, check_text, chosen_id

MAX_CONTENT = 4 * 1024 * 1024
"""Bytes of a message's text."""
MAX_MESSAGES = 20_000
"""Messages in one conversation."""
MAX_ATTACHED = 16
"""Attachments of one message."""
MAX_NAME = 256
"""Bytes of an attachment's name."""
MAX_MODEL = 512
"""Bytes of a model's name."""
ROLES = ("system", "user", "assistant", "tool")
_TREE_PAGE = 500
"""Messages whose attachments are read with one statement."""


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment of a message."""

    sha256: str
    name: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Times are seconds since the epoch."""

    id: str
    parent: str | None
    role: str
    content: str
    thinking: str
    tool_calls: tuple[str, ...]
    """JSON of each."""
    model: str
    created: float
    attachments: tuple[Attached, ...]
    run: str | None
    """The run that wrote it; null for one that a person wrote."""


@dataclass(frozen=True, slots=True)
class NewAttached:
    """What to attach to a message."""

    sha256: str
    name: str = ""
    media_type: str = "application/octet-stream"


_COLUMNS = """SELECT m.seq, m.id, p.id, m.role, m.content, m.thinking, m.tool_calls, m.model, m.created, r.id
    FROM messages m LEFT JOIN messages p ON p.seq = m.parent LEFT JOIN runs r ON r.message = m.seq"""


def _all(tx: Tx, clause: str, *values: object) -> list[Message]:
    rows = tx.all(f"{_COLUMNS} {clause}", *values)
    attached = _attached(tx, [row[0] for row in rows])
    return [
        Message(
            row[1], row[2], row[3], row[4], row[5], tuple(row[6].split("\n")[:-1]), row[7], row[8],
            attached.get(row[0], ()), row[9],
        )
        for row in rows
    ]  # fmt: skip


def _attached(tx: Tx, numbers: Sequence[int]) -> dict[int, tuple[Attached, ...]]:
    found: dict[int, tuple[Attached, ...]] = {}
    for start in range(0, len(numbers), _TREE_PAGE):
        part = numbers[start : start + _TREE_PAGE]
        marks = ", ".join("?" * len(part))
        for seq, sha256, name, media_type, size in tx.all(
            "SELECT ma.message, ma.sha256, ma.name, ma.media_type, a.size FROM message_attachments ma "  # noqa: S608 - marks only
            f"JOIN attachments a USING (sha256) WHERE ma.message IN ({marks}) ORDER BY ma.message, ma.position",
            *part,
        ):
            found[seq] = (*found.get(seq, ()), Attached(sha256, name, media_type, size))
    return found


def tree(tx: Tx, conversation: str) -> list[Message]:
    """Return every message of a conversation, the oldest first.

    Raises:
        NotHereError: There is no such conversation.
    """
    seq = conversations.number(tx, conversation)
    return _all(tx, "WHERE m.conversation = ? ORDER BY m.seq", seq)


def get(tx: Tx, id_: str) -> Message:
    """Return a message.

    Raises:
        NotHereError: There is none.
    """
    found = _all(tx, "WHERE m.id = ?", id_)
    if not found:
        raise NotHereError("expected the id of a message; it may have been deleted")
    return found[0]


def path(tx: Tx, conversation: str, leaf: str | None) -> list[Message]:
    """Return the messages from the beginning to a leaf.

    Raises:
        NotHereError: There is no such conversation, or no such message in it.
    """
    seq = conversations.number(tx, conversation)
    if leaf is None:
        return []
    start = place(tx, seq, leaf)
    return _all(
        tx,
        """WHERE m.seq IN (
            WITH RECURSIVE up (seq, parent) AS (
                SELECT seq, parent FROM messages WHERE seq = ?
                UNION ALL SELECT m.seq, m.parent FROM messages m JOIN up ON m.seq = up.parent
            ) SELECT seq FROM up
        ) ORDER BY m.seq""",
        start,
    )


def place(tx: Tx, conversation: int, id_: str) -> int:
    """Return the number of a message of a conversation.

    Raises:
        NotHereError: There is none.
    """
    row = tx.one("SELECT seq FROM messages WHERE id = ? AND conversation = ?", id_, conversation)
    if row is None:
        raise NotHereError("expected the id of a message of this conversation; it may have been deleted")
    return int(row[0])


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is not there yet."""

    role: str
    content: str
    parent: str | None = None
    id: str | None = None
    model: str = ""
    attachments: tuple[NewAttached, ...] = ()


def add(tx: Tx, conversation: str, new: NewMessage) -> Message:
    """Add a message, which becomes the leaf of the active path; one that was added with the same id is returned.

    Raises:
        NotHereError: The conversation, the parent or an attachment is not there.
        ConflictError: The message is not of its form, or its id is one of another message.
    """
    seq = conversations.number(tx, conversation)
    id_ = chosen_id(new.id)
    known = tx.one("SELECT conversation FROM messages WHERE id = ?", id_)
    if known is not None:
        if known[0] != seq or (found := get(tx, id_)).role != new.role or found.content != new.content:
            raise ConflictError("expected an id that no other message has")
        return found
    if new.role not in ROLES:
        raise ConflictError("expected a role of " + ", ".join(ROLES))
    if len(new.attachments) > MAX_ATTACHED:
        raise ConflictError(f"expected at most {MAX_ATTACHED} attachments, got {len(new.attachments)}")
    if tx.one("SELECT count(*) FROM messages WHERE conversation = ?", seq)[0] >= MAX_MESSAGES:
        raise ConflictError(f"expected at most {MAX_MESSAGES} messages in a conversation; begin another one")
    parent = None if new.parent is None else place(tx, seq, new.parent)
    number = tx.insert(
        "INSERT INTO messages (id, conversation, parent, role, content, model, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
        id_, seq, parent, new.role, check_text(new.content, MAX_CONTENT, "a message"),
        check_text(new.model, MAX_MODEL, "a model's name"), tx.now,
    )  # fmt: skip
    for position, attached in enumerate(new.attachments):
        attach(tx, number, position, attached)
    tx.run("UPDATE conversations SET leaf = ? WHERE seq = ?", number, seq)
    tx.changed("message", id_, conversation=conversation)
    conversations.touch(tx, seq, conversation)
    return get(tx, id_)


def attach(tx: Tx, message: int, position: int, attached: NewAttached) -> None:
    """Attach what was stored before to a message.

    Raises:
        NotHereError: It is not stored.
        ConflictError: Its name is too long.
    """
    if tx.one("SELECT 1 FROM attachments WHERE sha256 = ?", attached.sha256) is None:
        raise NotHereError("expected an attachment that is stored; store it first")
    name = check_text(attached.name, MAX_NAME, "a name")
    media_type = check_text(attached.media_type, MAX_NAME, "a media type")
    tx.insert(
        "INSERT INTO message_attachments (message, position, sha256, name, media_type) VALUES (?, ?, ?, ?, ?)",
        message, position, attached.sha256, name, media_type,
    )  # fmt: skip


def edit(tx: Tx, conversation: str, id_: str, content: str, *, new_id: str | None = None) -> Message:
    """Write a message anew: a sibling of it, with its attachments, becomes the leaf of the active path.

    Raises:
        NotHereError: It is not there.
        ConflictError: The new one is not of its form.
    """
    place(tx, conversations.number(tx, conversation), id_)
    old = get(tx, id_)
    attached = tuple(NewAttached(a.sha256, a.name, a.media_type) for a in old.attachments)
    return add(tx, conversation, NewMessage(old.role, content, old.parent, new_id, old.model, attached))


def choose(tx: Tx, conversation: str, id_: str) -> conversations.Conversation:
    """Have the active path lead through a message, and from there on to its newest descendant.

    Raises:
        NotHereError: It is not there.
    """
    seq = conversations.number(tx, conversation)
    leaf = _newest_below(tx, place(tx, seq, id_))
    tx.run("UPDATE conversations SET leaf = ? WHERE seq = ?", leaf, seq)
    tx.changed("conversation", conversation)
    return conversations.get(tx, conversation)


def _newest_below(tx: Tx, seq: int) -> int:
    while (row := tx.one("SELECT max(seq) FROM messages WHERE parent = ?", seq)) and row[0] is not None:
        seq = row[0]
    return seq


_BELOW = """WITH RECURSIVE below (seq) AS (
        SELECT ? UNION ALL SELECT m.seq FROM messages m JOIN below ON m.parent = below.seq
    ) """


def delete(tx: Tx, conversation: str, id_: str) -> None:
    """Delete a message and all that follows from it; no effect when it is not there.

    The active path, when it led through it, then leads to the newest message that is left below its parent.

    Raises:
        NotHereError: There is no such conversation.
        ConflictError: An answer runs in there.
    """
    seq = conversations.number(tx, conversation)
    row = tx.one("SELECT seq, parent FROM messages WHERE id = ? AND conversation = ?", id_, seq)
    if row is None:
        return
    number, parent = row
    gone = [found[0] for found in tx.all(_BELOW + "SELECT seq FROM below", number)]  # noqa: S608 - constants
    running = tx.one(
        _BELOW + "SELECT 1 FROM runs WHERE message IN (SELECT seq FROM below) "  # noqa: S608 - constants
        "AND state IN ('queued', 'loading', 'streaming')",
        number,
    )
    if running is not None:
        raise ConflictError("expected messages of which none is being written; stop the answer first")
    (leaf,) = tx.one("SELECT leaf FROM conversations WHERE seq = ?", seq)
    tx.run(_BELOW + "DELETE FROM messages WHERE seq IN (SELECT seq FROM below)", number)  # noqa: S608 - constants
    if leaf in set(gone):
        if parent is None:
            (top,) = tx.one("SELECT max(seq) FROM messages WHERE conversation = ? AND parent IS NULL", seq)
        else:
            top = parent
        tx.run(
            "UPDATE conversations SET leaf = ? WHERE seq = ?", None if top is None else _newest_below(tx, top), seq
        )
    tx.changed("message", id_, conversation=conversation, gone=True)
    conversations.touch(tx, seq, conversation)
