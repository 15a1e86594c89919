"""Runs as the store keeps them: the text of one that goes on in pieces, that of one that ended in its message.

Text has an offset: its UTF-8 bytes before it, of all kinds together, in the order in which they came. Offsets stay
the same when a run ends and its pieces move into the message.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cloudtolocalllm.bridge.store import conversations, messages
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import Tx, chosen_id

READ_SIZE = 64 * 1024
"""Bytes of text that a read returns at about most."""
INTERRUPTED = "interrupted"
LENGTH = "length"
"""Reasons of a run that are no problem's slug."""
TAKEN_UP_WITHIN = 3600.0
"""Seconds after its start within which an answer that broke off with the bridge is taken up again."""
TAKEN_UP_TIMES = 3
"""How often; one that ends the bridge each time must not do so for ever."""


class RunState(Enum):
    """How a run is."""

    QUEUED = "queued"
    LOADING = "loading"
    STREAMING = "streaming"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self in (RunState.QUEUED, RunState.LOADING, RunState.STREAMING)


class TextKind(Enum):
    """What a piece of text is."""

    CONTENT = "content"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a run's text."""

    at: int
    """Bytes of text before it."""
    kind: TextKind
    text: str

    @property
    def end(self) -> int:
        """Bytes of text up to its end."""
        return self.at + len(self.text.encode())

    def rest(self, offset: int) -> "Piece":
        """Return what is left of it from an offset inside.

        Raises:
            ConflictError: The offset is inside a character.
        """
        try:
            return Piece(offset, self.kind, self.text.encode()[offset - self.at :].decode())
        except UnicodeDecodeError:
            raise ConflictError("expected an offset between two characters, as a piece before had it") from None


@dataclass(frozen=True, slots=True)
class Run:
    """One answer of an engine. Times are seconds since the epoch."""

    id: str
    conversation: str
    message: str
    """The message it writes."""
    model: str
    state: RunState
    reason: str
    """Why it failed: a problem's slug; INTERRUPTED; or LENGTH of one that is done, but only as far as its limit of
    tokens; "" for none."""
    detail: str
    """The same for people."""
    created: float
    ended: float | None
    size: int
    """Bytes of its text that are stored."""
    prompt_tokens: int | None
    answer_tokens: int | None


_COLUMNS = """SELECT r.id, c.id, m.id, r.model, r.state, r.reason, r.detail, r.created, r.ended, r.size,
    r.prompt_tokens, r.answer_tokens
    FROM runs r JOIN conversations c ON c.seq = r.conversation JOIN messages m ON m.seq = r.message"""


def _made(row: Any) -> Run:
    id_, conversation, message, model, state, *rest = row
    return Run(id_, conversation, message, model, RunState(state), *rest)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is not there yet."""

    conversation: str
    parent: str
    """The message that it answers."""
    model: str
    options: str = "{}"
    """JSON."""
    id: str | None = None


def find(tx: Tx, id_: str) -> Run | None:
    """Return a run, or None."""
    row = tx.one(f"{_COLUMNS} WHERE r.id = ?", id_)
    return None if row is None else _made(row)


def get(tx: Tx, id_: str) -> Run:
    """Return a run.

    Raises:
        NotHereError: There is none.
    """
    run = find(tx, id_)
    if run is None:
        raise NotHereError("expected the id of a run; its message may have been deleted")
    return run


def of_conversation(tx: Tx, conversation: str, limit: int = 200) -> list[Run]:
    """Return the newest runs of a conversation, the newest first."""
    rows = tx.all(f"{_COLUMNS} WHERE c.id = ? ORDER BY r.seq DESC LIMIT ?", conversation, limit)
    return [_made(row) for row in rows]


def active(tx: Tx) -> list[Run]:
    """Return the runs that go on."""
    rows = tx.all(f"{_COLUMNS} WHERE r.state IN ('queued', 'loading', 'streaming') ORDER BY r.seq")
    return [_made(row) for row in rows]


def is_written(tx: Tx, ids: Iterable[str]) -> bool:
    """Tell whether one of these runs goes on."""
    going_on = tx.all("SELECT id FROM runs WHERE state IN ('queued', 'loading', 'streaming')")
    return not set(ids).isdisjoint(id_ for (id_,) in going_on)


@dataclass(frozen=True, slots=True)
class LeftRun:
    """A run that went on when the bridge ended, and is to be taken up again."""

    run: Run
    parent: str
    """The message that it answers."""
    options: str
    """JSON."""


def begin(tx: Tx, new: NewRun) -> Run:
    """Make a run and the empty message that it writes, a child of `parent` and leaf of the active path.

    Raises:
        NotHereError: The conversation or its parent is not there.
        ConflictError: The id is one of another run, or not of its form.
    """
    id_ = chosen_id(new.id)
    if tx.one("SELECT 1 FROM runs WHERE id = ?", id_) is not None:
        raise ConflictError("expected an id that no other run has")
    seq = conversations.number(tx, new.conversation)
    message = messages.add(tx, new.conversation, messages.NewMessage("assistant", "", new.parent, model=new.model))
    tx.insert(
        "INSERT INTO runs (id, conversation, message, model, options, state, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
        id_, seq, messages.place(tx, seq, message.id), new.model, new.options, RunState.QUEUED.value, tx.now,
    )  # fmt: skip
    tx.changed("run", id_, conversation=new.conversation)
    return get(tx, id_)


def _number(tx: Tx, id_: str) -> int | None:
    """Return the number of a run that goes on."""
    row = tx.one("SELECT seq FROM runs WHERE id = ? AND state IN ('queued', 'loading', 'streaming')", id_)
    return None if row is None else int(row[0])


def append(tx: Tx, id_: str, pieces: Iterable[Piece]) -> None:
    """Add text to a run that goes on.

    Raises:
        ConflictError: It does not go on, or a piece does not begin where the text ends.
    """
    seq = _number(tx, id_)
    if seq is None:
        raise ConflictError("expected a run that goes on")
    (size,) = tx.one("SELECT size FROM runs WHERE seq = ?", seq)
    for piece in pieces:
        if piece.at != size:
            raise ConflictError(f"expected text from byte {size} on, got it from {piece.at}")
        length = piece.end - piece.at
        if not length:
            continue
        tx.insert(
            "INSERT INTO run_text (run, at, size, kind, text) VALUES (?, ?, ?, ?, ?)",
            seq, size, length, piece.kind.value, piece.text,
        )  # fmt: skip
        size += length
    tx.run("UPDATE runs SET size = ? WHERE seq = ?", size, seq)


def set_state(tx: Tx, id_: str, state: RunState) -> None:
    """Take note of how a run that goes on is."""
    seq = _number(tx, id_)
    if seq is not None:
        tx.run("UPDATE runs SET state = ? WHERE seq = ?", state.value, seq)
        tx.changed("run", id_, conversation=get(tx, id_).conversation)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    state: RunState
    reason: str = ""
    detail: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


def finish(tx: Tx, id_: str, end: End) -> None:
    """End a run: its text moves into its message; no effect on one that has ended."""
    seq = _number(tx, id_)
    if seq is None:
        return
    texts: dict[TextKind, list[str]] = {kind: [] for kind in TextKind}
    layout: list[list[str | int]] = []
    for kind, text, size in tx.all("SELECT kind, text, size FROM run_text WHERE run = ? ORDER BY at", seq):
        texts[TextKind(kind)].append(text)
        if layout and layout[-1][0] == kind and kind != TextKind.TOOL_CALL.value:
            layout[-1][1] = int(layout[-1][1]) + size
        else:
            layout.append([kind, size])
    tx.run(
        "UPDATE messages SET content = ?, thinking = ?, tool_calls = ? WHERE seq = (SELECT message FROM runs "
        "WHERE seq = ?)",
        *("".join(texts[kind]) for kind in (TextKind.CONTENT, TextKind.THINKING, TextKind.TOOL_CALL)), seq,
    )  # fmt: skip
    tx.run("DELETE FROM run_text WHERE run = ?", seq)
    tx.run(
        "UPDATE runs SET state = ?, reason = ?, detail = ?, ended = ?, layout = ?, prompt_tokens = ?, "
        "answer_tokens = ? WHERE seq = ?",
        end.state.value, end.reason, end.detail, tx.now, json.dumps(layout),
        end.prompt_tokens, end.answer_tokens, seq,
    )  # fmt: skip
    run = get(tx, id_)
    tx.changed("run", id_, conversation=run.conversation)
    tx.changed("message", run.message, conversation=run.conversation)
    conversations.touch(tx, conversations.number(tx, run.conversation), run.conversation)


def left_over(tx: Tx, within: float = TAKEN_UP_WITHIN) -> list[LeftRun]:
    """Return the runs that went on when the bridge ended; end those that are too old, or were taken up too often.

    Args:
        tx: The store.
        within: Seconds after its start within which a run is not too old.
    """
    left: list[LeftRun] = []
    detail = "The bridge ended while this answer was being written; here is all of it that was stored."
    for run in active(tx):
        options, times, parent = tx.one(
            "SELECT r.options, r.taken_up, p.id FROM runs r JOIN messages m ON m.seq = r.message "
            "LEFT JOIN messages p ON p.seq = m.parent WHERE r.id = ?",
            run.id,
        )  # fmt: skip
        if parent is None or times >= TAKEN_UP_TIMES or not 0 <= tx.now - run.created < within:
            finish(tx, run.id, End(RunState.INTERRUPTED, INTERRUPTED, detail))
            continue
        tx.run("UPDATE runs SET taken_up = taken_up + 1 WHERE id = ?", run.id)
        left.append(LeftRun(run, parent, options))
    return left


def read(tx: Tx, id_: str, offset: int, size: int = READ_SIZE) -> list[Piece]:
    """Return text of a run from an offset on, some `size` bytes of it.

    Raises:
        NotHereError: There is no such run.
        ConflictError: The offset lies behind the stored text, or inside a character.
    """
    row = tx.one("SELECT seq, state, size, layout, message FROM runs WHERE id = ?", id_)
    if row is None:
        raise NotHereError("expected the id of a run; its message may have been deleted")
    seq, state, stored, layout, message = row
    if not 0 <= offset <= stored:
        raise ConflictError(f"expected an offset of at most {stored}, got {offset}")
    found = _running_pieces(tx, seq, offset, size) if RunState(state).active else _ended_pieces(tx, message, layout)
    return list(_cut(found, offset, size))


def all_text(tx: Tx, id_: str) -> list[Piece]:
    """Return all stored text of a run that goes on."""
    seq = _number(tx, id_)
    return [] if seq is None else _running_pieces(tx, seq, 0, messages.MAX_CONTENT + READ_SIZE)


def _running_pieces(tx: Tx, seq: int, offset: int, size: int) -> list[Piece]:
    rows = tx.all(
        "SELECT at, kind, text FROM run_text WHERE run = ? AND at + size > ? AND at < ? ORDER BY at",
        seq, offset, offset + size,
    )  # fmt: skip
    return [Piece(at, TextKind(kind), text) for at, kind, text in rows]


def _ended_pieces(tx: Tx, message: int, layout: str) -> Iterator[Piece]:
    row = tx.one("SELECT content, thinking, tool_calls FROM messages WHERE seq = ?", message)
    kinds = (TextKind.CONTENT, TextKind.THINKING, TextKind.TOOL_CALL)
    left = {kind: memoryview(text.encode()) for kind, text in zip(kinds, row, strict=True)}
    at = 0
    for name, size in json.loads(layout):
        kind = TextKind(name)
        yield Piece(at, kind, str(left[kind][:size], "utf-8"))
        left[kind] = left[kind][size:]
        at += size


def _cut(pieces: Iterable[Piece], offset: int, size: int) -> Iterator[Piece]:
    """Return the pieces from an offset on, each of at most `size` bytes, `size` bytes and a character in all."""
    end = offset + size
    for found in pieces:
        piece = found
        if piece.end <= offset:
            continue
        if piece.at < offset:
            piece = piece.rest(offset)
        if piece.at >= end:
            return
        if piece.end > end and piece.kind is not TextKind.TOOL_CALL:
            # Up to the end of the character that the limit falls into.
            raw = piece.text.encode()
            stop = end - piece.at
            while stop < len(raw) and raw[stop] & 0xC0 == 0x80:
                stop += 1
            yield Piece(piece.at, piece.kind, raw[:stop].decode())
            return
        yield piece
