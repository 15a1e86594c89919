"""Reads the events of streamed answers, of OpenAI's and of Ollama's API: pure.

Only what was interrupted is read; what passes undisturbed is not looked into.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

MAX_LINE: Final = 1024 * 1024
"""Bytes of one event."""
DONE: Final = "[DONE]"
"""What OpenAI's API sends last, in place of an object."""
_TEXTS: Final = ("reasoning_content", "reasoning", "content", "refusal")
"""Members of OpenAI's delta that hold text; engines name what a model thinks in either way."""
_OLLAMA_TEXTS: Final = ("thinking", "content")
_DATA: Final = b"data:"


class Dialect(Enum):
    """How a route writes its events."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    OLLAMA_CHAT = "/ollama/api/chat"
    OLLAMA_GENERATE = "/ollama/api/generate"

    @property
    def is_sse(self) -> bool:
        """Whether events are server-sent ones; else each is a line of JSON."""
        return self in (Dialect.CHAT, Dialect.COMPLETION)

    @property
    def content_type(self) -> bytes:
        """Of a streamed answer."""
        return b"text/event-stream" if self.is_sse else b"application/x-ndjson"


class UnreadableError(Exception):
    """An event holds something that cannot be followed. The text quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that an event says, of one kind. Joined over all events, what is said of a kind is the answer's."""

    kind: str
    text: str
    keep: Callable[[str], None]
    """Has the event say only the rest of the text that is given."""
    whole: bool = False
    """Whether a part of it means nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that means something."""

    value: dict[str, Any] | None
    """The event; None for the mark of the end."""


def line(dialect: Dialect, data: bytes) -> Line | None:
    """Read a line; None for one that says nothing.

    Raises:
        UnreadableError: It is no event, or none of this API.
    """
    data = data.strip()
    if dialect.is_sse:
        if data.startswith(b":"):
            return None  # a comment, which keeps the connection alive
        if data and not data.startswith(_DATA):
            raise UnreadableError("expected data, got another field of an event")
        data = data.removeprefix(_DATA).strip()
        if data == DONE.encode():
            return Line(None)
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadableError("expected JSON in an event") from None
    if not isinstance(value, dict):
        raise UnreadableError("expected a JSON object in an event")
    return Line(value)


def write(dialect: Dialect, found: Line) -> bytes:
    """Return a line as it is sent."""
    text = DONE if found.value is None else json.dumps(found.value, separators=(",", ":"))
    return b"data: %s\n\n" % text.encode() if dialect.is_sse else b"%s\n" % text.encode()


def parts(dialect: Dialect, found: Line) -> list[Part]:
    """Return what an event says; nothing for one that only opens an answer, for example.

    Raises:
        UnreadableError: It says something of a kind that is not known, or that the engine failed.
    """
    value = found.value
    if value is None:
        return [Part("end", DONE, _nothing, whole=True)]
    if "error" in value:
        raise UnreadableError("expected a part of an answer, got an engine's error")
    if not dialect.is_sse:
        return list(_ollama(dialect, value))
    choices = value.get("choices")
    if not choices:
        return [Part("usage", "usage", _nothing, whole=True)] if value.get("usage") else []
    if (
        not isinstance(choices, list)
        or len(choices) > 1
        or not isinstance(choices[0], dict)
        or choices[0].get("index")
    ):
        raise UnreadableError("expected one answer, got several")
    return list(_choice(dialect, choices[0]))


def tool_calls(value: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the pieces of calls in an event of OpenAI's API, by their place in the answer."""
    for choice in value.get("choices") or ():
        delta = choice.get("delta")
        for place, call in enumerate((delta.get("tool_calls") if isinstance(delta, dict) else None) or ()):
            if isinstance(call, dict):
                index = call.get("index")
                yield index if type(index) is int else place, call


def can_be_cut(value: dict[str, Any] | None) -> bool:
    """Tell whether an event may say less: not where it has something for each of its tokens."""
    if value is None or value.get("logprobs"):
        return False
    return not any(choice.get("logprobs") for choice in value.get("choices") or ())


def _choice(dialect: Dialect, choice: dict[str, Any]) -> Iterator[Part]:
    if dialect is Dialect.COMPLETION:
        yield from _texts(choice, ("text",))
    else:
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict) or any(
            v for k, v in delta.items() if k not in (*_TEXTS, "role", "tool_calls")
        ):
            raise UnreadableError("expected text or calls of tools in an event, got something else")
        yield from _texts(delta, _TEXTS)
        for index, call in tool_calls({"choices": [choice]}):
            yield from _call(index, call)
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        yield Part("finish", reason, _setter(choice, "finish_reason", None), whole=True)


def _call(index: int, call: dict[str, Any]) -> Iterator[Part]:
    function = call.get("function")
    if not isinstance(function, dict):
        return

    def unnamed(_: str) -> None:  # what is told once; clients would join it to the first
        function.pop("name", None)
        call.pop("id", None)
        call.pop("type", None)

    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(name, str) and name:
        yield Part(f"name {index}", name, unnamed, whole=True)
    if isinstance(arguments, str) and arguments:
        yield Part(f"arguments {index}", arguments, _setter(function, "arguments"))


def _ollama(dialect: Dialect, value: dict[str, Any]) -> Iterator[Part]:
    if dialect is Dialect.OLLAMA_GENERATE:
        if value.get("image"):
            raise UnreadableError("expected text in an event, got an image")
        yield from _texts(value, ("thinking", "response"))
    else:
        message = value.get("message") or {}
        known = (*_OLLAMA_TEXTS, "role", "tool_calls", "tool_name")
        if not isinstance(message, dict) or any(v for k, v in message.items() if k not in known):
            raise UnreadableError("expected text or calls of tools in an event, got something else")
        yield from _texts(message, _OLLAMA_TEXTS)
        calls = message.get("tool_calls") or []
        for call in list(calls):
            said = call.get("function") if isinstance(call, dict) else None
            text = json.dumps(said, sort_keys=True) + "\n"
            yield Part("call", text, _remover(calls, call), whole=True)
    if value.get("done") is True:
        yield Part("end", str(value.get("done_reason") or "done"), _nothing, whole=True)


def _texts(place: dict[str, Any], names: tuple[str, ...]) -> Iterator[Part]:
    for name in names:
        text = place.get(name)
        if isinstance(text, str):
            if text:
                yield Part(name, text, _setter(place, name))
        elif text:
            raise UnreadableError("expected a text in an event, got something else")


def _setter(place: dict[str, Any], name: str, empty: str | None = "") -> Callable[[str], None]:
    return lambda rest: place.__setitem__(name, rest or empty)


def _remover(calls: list[Any], call: Any) -> Callable[[str], None]:
    return lambda _: calls.remove(call)


def _nothing(rest: str) -> None:
    """There is nothing to keep."""
