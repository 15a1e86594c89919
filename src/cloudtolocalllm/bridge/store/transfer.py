"""Export and import: one JSON document a conversation, as docs/reference/home-store.md describes it.

What was exported can be imported into an empty store and exported again, the same to the last byte.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.bridge.store import attachments, conversations, messages, runs
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.tx import ID, Tx, check_text

FORMAT = "cloudtolocalllm-conversation"
VERSION = 1
MAX_RUN_TEXT = 4 * 1024
"""Bytes of a run's reason or detail: an engine's error of 500 characters, and some words of ours."""
MAX_OPTIONS = 64 * 1024
"""Bytes of a run's options: nine texts of 256 characters, each at most twelve bytes of JSON."""

_ENDED = tuple(state.value for state in runs.RunState if not state.active)
_Document = dict[str, Any]


def export(tx: Tx, id_: str) -> _Document:
    """Return a conversation as a document.

    Raises:
        NotHereError: There is none.
        ConflictError: An answer is being written in it.
    """
    seq = conversations.number(tx, id_)
    if conversations.is_running(tx, seq):
        raise ConflictError("expected a conversation in which no answer runs; wait for its end")
    found = conversations.get(tx, id_)
    tree = messages.tree(tx, id_)
    kept = sorted({attached.sha256 for message in tree for attached in message.attachments})
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": found.id,
        "title": found.title,
        "pinned": found.pinned,
        "created": found.created,
        "updated": found.updated,
        "leaf": found.leaf,
        "messages": [_message(message) for message in tree],
        "runs": [_run(row) for row in tx.all(_RUNS, seq)],
        "attachments": {sha256: base64.b64encode(attachments.get(tx, sha256)).decode() for sha256 in kept},
    }


_RUNS = """SELECT r.id, m.id, r.model, r.options, r.state, r.reason, r.detail, r.created, r.ended, r.size, r.layout,
    r.prompt_tokens, r.answer_tokens
    FROM runs r JOIN messages m ON m.seq = r.message WHERE r.conversation = ? ORDER BY r.seq"""
_RUN_NAMES = ("id", "message", "model", "options", "state", "reason", "detail", "created", "ended", "size", "layout",
              "prompt_tokens", "answer_tokens")  # fmt: skip


def _message(message: messages.Message) -> _Document:
    return {
        "id": message.id,
        "parent": message.parent,
        "role": message.role,
        "content": message.content,
        "thinking": message.thinking,
        "tool_calls": list(message.tool_calls),
        "model": message.model,
        "created": message.created,
        "attachments": [
            {"sha256": a.sha256, "name": a.name, "media_type": a.media_type} for a in message.attachments
        ],
    }  # fmt: skip


def _run(row: tuple[Any, ...]) -> _Document:
    run = dict(zip(_RUN_NAMES, row, strict=True))
    return {**run, "options": json.loads(run["options"]), "layout": json.loads(run["layout"])}


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a document."""

    id: str
    added: bool
    """False for one that is there already; nothing was changed."""


def import_(tx: Tx, document: Any) -> Imported:
    """Add a conversation from a document; one that is there already stays as it is.

    Raises:
        ConflictError: The document is not of its form, or one of its messages or runs is in another conversation.
    """
    reader = _Reader(document)
    if reader.text("format", 64) != FORMAT or reader.whole("version") != VERSION:
        raise ConflictError(f"expected a document of format {FORMAT}, version {VERSION}")
    id_ = reader.id("id")
    if tx.one("SELECT 1 FROM conversations WHERE id = ?", id_) is not None:
        return Imported(id_, added=False)
    seq = tx.insert(
        "INSERT INTO conversations (id, title, pinned, created, updated) VALUES (?, ?, ?, ?, ?)",
        id_, reader.text("title", conversations.MAX_TITLE), int(reader.flag("pinned")), reader.time("created"),
        reader.time("updated"),
    )  # fmt: skip
    _attachments(tx, reader)
    numbers: dict[str, int] = {}
    entries = reader.list("messages", messages.MAX_MESSAGES)
    for entry in entries:
        numbers[entry.id("id")] = _add_message(tx, seq, entry, numbers)
    for entry in reader.list("runs", messages.MAX_MESSAGES):
        _add_run(tx, seq, entry, numbers)
    leaf = reader.optional_id("leaf")
    if leaf is not None:
        tx.run("UPDATE conversations SET leaf = ? WHERE seq = ?", _known(numbers, leaf), seq)
    tx.changed("conversation", id_)
    return Imported(id_, added=True)


def _known(numbers: dict[str, int], id_: str) -> int:
    if id_ not in numbers:
        raise ConflictError("expected messages that name only messages before them in the same document")
    return numbers[id_]


def _attachments(tx: Tx, reader: "_Reader") -> None:
    found = reader.member("attachments", dict)
    if len(found) > messages.MAX_MESSAGES:
        raise ConflictError("expected fewer attachments")
    for sha256, text in found.items():
        try:
            data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        except (binascii.Error, ValueError):
            raise ConflictError("expected attachments in base64") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ConflictError("expected attachments whose SHA-256 is right")
        attachments.put(tx, data)


def _add_message(tx: Tx, seq: int, entry: "_Reader", numbers: dict[str, int]) -> int:
    id_, parent, role = entry.id("id"), entry.optional_id("parent"), entry.text("role", 16)
    if tx.one("SELECT 1 FROM messages WHERE id = ?", id_) is not None:
        raise ConflictError("expected messages that are in no other conversation, and none twice")
    if role not in messages.ROLES:
        raise ConflictError("expected roles of " + ", ".join(messages.ROLES))
    calls = entry.member("tool_calls", list)
    if not all(isinstance(call, str) and is_call(call) for call in calls):
        raise ConflictError("expected tool calls of one line of JSON each, with id, name and arguments")
    number = tx.insert(
        "INSERT INTO messages (id, conversation, parent, role, content, thinking, tool_calls, model, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        id_, seq, None if parent is None else _known(numbers, parent), role,
        entry.text("content", messages.MAX_CONTENT), entry.text("thinking", messages.MAX_CONTENT),
        check_text("".join(call + "\n" for call in calls), messages.MAX_CONTENT, "tool calls"),
        entry.text("model", messages.MAX_MODEL), entry.time("created"),
    )  # fmt: skip
    for position, attached in enumerate(entry.list("attachments", messages.MAX_ATTACHED)):
        what = messages.NewAttached(attached.text("sha256", 64), attached.text("name", messages.MAX_NAME),
                                    attached.text("media_type", messages.MAX_NAME))  # fmt: skip
        try:
            messages.attach(tx, number, position, what)
        except NotHereError:
            raise ConflictError("expected attachments that the document has") from None
    return number


def is_call(text: str) -> bool:
    """Tell whether a text is a tool call as runs write them."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return False
    members = [call.get(name) for name in ("id", "name", "arguments")] if isinstance(call, dict) else [None]
    return "\n" not in text and all(isinstance(member, str) for member in members)


def _add_run(tx: Tx, seq: int, entry: "_Reader", numbers: dict[str, int]) -> None:
    id_, state = entry.id("id"), entry.text("state", 16)
    message = _known(numbers, entry.id("message"))
    if tx.one("SELECT 1 FROM runs WHERE id = ? OR message = ?", id_, message) is not None:
        raise ConflictError("expected runs that are in no other conversation, and one for a message")
    if state not in _ENDED:
        raise ConflictError("expected runs that have ended")
    size, layout = _layout(tx, message, entry)
    tx.insert(
        "INSERT INTO runs (id, conversation, message, model, options, state, reason, detail, created, ended, size, "
        "layout, prompt_tokens, answer_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        id_, seq, message, entry.text("model", messages.MAX_MODEL), _options(entry), state,
        entry.text("reason", MAX_RUN_TEXT), entry.text("detail", MAX_RUN_TEXT), entry.time("created"),
        entry.time("ended"), size, json.dumps(layout), entry.optional_whole("prompt_tokens"),
        entry.optional_whole("answer_tokens"),
    )  # fmt: skip


def _options(entry: "_Reader") -> str:
    try:
        return check_text(json.dumps(entry.member("options", dict), allow_nan=False), MAX_OPTIONS, "options")
    except ValueError:
        raise ConflictError("expected options of finite numbers") from None


def _layout(tx: Tx, message: int, entry: "_Reader") -> tuple[int, list[list[Any]]]:
    """Return the size and layout of a run whose texts are those of its message."""
    row = tx.one("SELECT content, thinking, tool_calls FROM messages WHERE seq = ?", message)
    left = dict(zip(("content", "thinking", "tool_call"), (memoryview(text.encode()) for text in row), strict=True))
    layout = entry.member("layout", list)
    for part in layout:
        if not (
            isinstance(part, list)
            and len(part) == 2
            and part[0] in tuple(left)
            and type(part[1]) is int
            and part[1] > 0
        ):
            raise ConflictError("expected a layout of kinds and sizes")
        kind, size = part
        if size > len(left[kind]) or not _ends_whole(kind, left[kind], size):
            raise ConflictError("expected a layout that fits its message")
        left[kind] = left[kind][size:]
    if any(left.values()):
        raise ConflictError("expected a layout that fits its message")
    if entry.whole("size") != sum(part[1] for part in layout):
        raise ConflictError("expected the size of a run's text")
    return sum(part[1] for part in layout), layout


def _ends_whole(kind: str, text: memoryview, size: int) -> bool:
    """Tell whether so many bytes of a text end between two characters, or two tool calls."""
    if kind == "tool_call":
        return text[size - 1] == ord("\n")
    return size == len(text) or text[size] & 0xC0 != 0x80


class _Reader:
    """Reads the members of a JSON object that anybody may have made."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise ConflictError("expected a JSON object")
        self._value = value

    def member(self, name: str, kind: type) -> Any:
        value = self._value.get(name)
        if not isinstance(value, kind):
            raise ConflictError(f"expected {name} to be of type {kind.__name__}")
        return value

    def text(self, name: str, most: int) -> str:
        return check_text(self.member(name, str), most, name)

    def flag(self, name: str) -> bool:
        return bool(self.member(name, bool))

    def whole(self, name: str) -> int:
        value = self.member(name, int)
        if isinstance(value, bool) or not 0 <= value < 2**53:
            raise ConflictError(f"expected {name} to be a whole number")
        return int(value)

    def optional_whole(self, name: str) -> int | None:
        return None if self._value.get(name) is None else self.whole(name)

    def time(self, name: str) -> float:
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
            raise ConflictError(f"expected {name} to be a time in seconds since the epoch")
        return float(value)

    def id(self, name: str) -> str:
        value = self.member(name, str)
        if not ID.fullmatch(value):
            raise ConflictError(f"expected {name} to be an id")
        return str(value)

    def optional_id(self, name: str) -> str | None:
        return None if self._value.get(name) is None else self.id(name)

    def list(self, name: str, most: int) -> "list[_Reader]":
        found = self.member(name, list)
        if len(found) > most:
            raise ConflictError(f"expected at most {most} {name}")
        return [_Reader(entry) for entry in found]
