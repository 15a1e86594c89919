"""Conversations, messages, attachments, search, export and import."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, NoReturn

from cloudtolocalllm.bridge.home_api.home import ROUTES, Home
from cloudtolocalllm.bridge.home_api.messages import Blob, Caller, Nothing
from cloudtolocalllm.bridge.store import attachments, conversations, messages, runs, search, transfer
from cloudtolocalllm.bridge.store.conversations import Conversation, Page
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError
from cloudtolocalllm.bridge.store.messages import Message, NewMessage
from cloudtolocalllm.bridge.store.runs import Run
from cloudtolocalllm.bridge.store.search import SEARCH_TIME, Hit

MAX_IMPORT = 64 * 1024 * 1024
"""Bytes of a document that is imported."""


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A conversation that is not there yet."""

    title: str = ""
    id: str | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ConversationEdit:
    """What to change of a conversation; null leaves it."""

    title: str | None = None
    pinned: bool | None = None


@dataclass(frozen=True, slots=True)
class WholeConversation:
    """A conversation with all its messages, the oldest first, and its newest runs."""

    conversation: Conversation
    messages: tuple[Message, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class MessageEdit:
    """The new text of a message."""

    content: str
    id: str | None = None
    """Of the new sibling."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found, the best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """An attachment that was stored."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Exported:
    """One conversation of an export."""

    id: str
    document: dict[str, Any] | None
    """null for one in which an answer is being written: export it later."""


@dataclass(frozen=True, slots=True)
class Document:
    """An exported conversation, as docs/reference/home-store.md describes it."""

    document: dict[str, Any]


@ROUTES.add("GET", "/conversations")
async def list_conversations(home: Home, caller: Caller, after: str | None = None, limit: int = 50) -> Page:
    """List conversations, those that changed last first."""
    return await home.store.read(lambda tx: conversations.page(tx, after=after, limit=limit))


@ROUTES.add("POST", "/conversations")
async def create_conversation(home: Home, caller: Caller, body: NewConversation) -> Conversation:
    """Begin a conversation."""
    return await home.store.add(lambda tx: conversations.create(tx, body.title, id_=body.id, pinned=body.pinned))


@ROUTES.add("GET", "/conversations/{conversation}")
async def get_conversation(home: Home, caller: Caller, conversation: str) -> WholeConversation:
    """Get a conversation with all its messages."""
    return await home.store.read(
        lambda tx: WholeConversation(
            conversations.get(tx, conversation),
            tuple(messages.tree(tx, conversation)),
            tuple(runs.of_conversation(tx, conversation)),
        )
    )


@ROUTES.add("PATCH", "/conversations/{conversation}")
async def edit_conversation(home: Home, caller: Caller, conversation: str, body: ConversationEdit) -> Conversation:
    """Rename or pin a conversation."""
    return await home.store.write(
        lambda tx: conversations.edit(tx, conversation, title=body.title, pinned=body.pinned)
    )


@ROUTES.add("DELETE", "/conversations/{conversation}")
async def delete_conversation(home: Home, caller: Caller, conversation: str) -> Nothing:
    """Delete a conversation for good."""
    await home.store.write(lambda tx: conversations.delete(tx, conversation))
    return Nothing()


@ROUTES.add("POST", "/conversations/{conversation}/messages")
async def add_message(home: Home, caller: Caller, conversation: str, body: NewMessage) -> Message:
    """Add a message; it becomes the end of the active path."""
    return await home.store.add(lambda tx: messages.add(tx, conversation, body))


@ROUTES.add("POST", "/conversations/{conversation}/messages/{message}/edit")
async def edit_message(home: Home, caller: Caller, conversation: str, message: str, body: MessageEdit) -> Message:
    """Write a message anew, as a sibling of it."""
    return await home.store.add(
        lambda tx: messages.edit(tx, conversation, message, body.content, new_id=body.id)
    )  # fmt: skip


@ROUTES.add("POST", "/conversations/{conversation}/messages/{message}/choose")
async def choose_message(home: Home, caller: Caller, conversation: str, message: str) -> Conversation:
    """Have the active path lead through a message."""
    return await home.store.write(lambda tx: messages.choose(tx, conversation, message))


@ROUTES.add("DELETE", "/conversations/{conversation}/messages/{message}")
async def delete_message(home: Home, caller: Caller, conversation: str, message: str) -> Nothing:
    """Delete a message and all that follows from it."""
    await home.store.write(lambda tx: messages.delete(tx, conversation, message))
    return Nothing()


@ROUTES.add("GET", "/search")
async def search_all(home: Home, caller: Caller, query: str, limit: int = 20) -> Hits:
    """Search titles and messages; any text is a query."""
    found = await home.store.read(lambda tx: search.search(tx, query, limit), seconds=SEARCH_TIME)
    return Hits(tuple(found))


@ROUTES.add("PUT", "/attachments", max_content=attachments.MAX_SIZE)
async def store_attachment(home: Home, caller: Caller, body: bytes) -> Stored:
    """Store an attachment, to be named in a message within a day."""
    return Stored(await home.store.add(lambda tx: attachments.put(tx, body)))


@ROUTES.add("GET", "/attachments/{sha256}")
async def get_attachment(home: Home, caller: Caller, sha256: str) -> Blob:
    """Get an attachment."""
    return Blob(await home.store.read(lambda tx: attachments.get(tx, sha256)))


@ROUTES.add("GET", "/conversations/{conversation}/export")
async def export_conversation(home: Home, caller: Caller, conversation: str) -> Document:
    """Export a conversation."""
    return Document(await home.store.read(lambda tx: transfer.export(tx, conversation)))


@ROUTES.add("GET", "/export")
async def export_all(home: Home, caller: Caller) -> AsyncGenerator[Exported, None]:
    """Export every conversation, one event each."""
    ids = await home.store.read(lambda tx: [row[0] for row in tx.all("SELECT id FROM conversations ORDER BY seq")])
    for id_ in ids:
        wanted = id_
        try:
            yield Exported(id_, await home.store.read(lambda tx: transfer.export(tx, wanted)))  # noqa: B023 - awaited here
        except ConflictError:
            yield Exported(id_, None)
        except NotHereError:
            continue  # deleted meanwhile


@ROUTES.add("POST", "/import", max_content=MAX_IMPORT)
async def import_conversation(home: Home, caller: Caller, body: bytes) -> transfer.Imported:
    """Import a conversation; one that is there already stays as it is."""
    document = await asyncio.to_thread(_parsed, body)
    return await home.store.add(lambda tx: transfer.import_(tx, document))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise ConflictError("expected a document in JSON") from None


def _refused(name: str) -> NoReturn:
    raise ValueError(name)
