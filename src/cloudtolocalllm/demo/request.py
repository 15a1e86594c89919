"""A request to generate, whichever API it came by."""

from dataclasses import dataclass
from typing import Any

from cloudtolocalllm.demo.settings import Pace


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the client offers."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    """Name and JSON type of each parameter that is required."""


@dataclass(frozen=True, slots=True)
class Generate:
    """What to answer, and how."""

    model: str
    """As the client wrote it."""
    prompt: str
    """The text of the last message of the user, or of the prompt."""
    pace: Pace
    messages: tuple[dict[str, Any], ...] = ()
    """The whole conversation as the client sent it; empty for a bare prompt."""
    prompt_tokens: int = 0
    max_tokens: int | None = None
    """None for no limit."""
    tools: tuple[Tool, ...] = ()
    think: bool = False
    images: int = 0
    after_tool: bool = False
    """Whether the last message is a tool's result."""


class MalformedError(ValueError):
    """The request's content is not what its route takes; the text says what was expected."""


def member(value: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return an optional member of a JSON object.

    Raises:
        MalformedError: It has another type.
    """
    found = value.get(name)
    if found is None:
        return default
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise MalformedError(f"expected {name} to be {_KINDS[kind]}")
    return found


_KINDS: dict[type, str] = {
    str: "a string", list: "an array", dict: "an object", int: "a whole number", bool: "a boolean"
}  # fmt: skip


def conversation(value: dict[str, Any], name: str = "messages") -> tuple[dict[str, Any], ...]:
    """Return the messages of a chat request.

    Raises:
        MalformedError: They are not an array of objects.
    """
    messages = member(value, name, list, [])
    if not all(isinstance(message, dict) for message in messages):
        raise MalformedError(f"expected {name} to be an array of objects")
    return tuple(messages)


def text_of(content: Any) -> tuple[str, int]:
    """Return the text of a message's content (a string, or OpenAI's or Anthropic's parts) and how many images."""
    if isinstance(content, str):
        return content, 0
    texts: list[str] = []
    images = 0
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif "image" in str(part.get("type")):
            images += 1
        elif part.get("type") == "tool_result":
            texts.append(text_of(part.get("content"))[0])
    return "\n".join(texts), images


def offered_tools(value: dict[str, Any]) -> tuple[Tool, ...]:
    """Return the tools of a request, in OpenAI's shape (Ollama's too), the Responses API's or Anthropic's."""
    tools = []
    for offered in member(value, "tools", list, []):
        function = offered.get("function", offered) if isinstance(offered, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        schema = function.get("parameters") or function.get("input_schema") or {}
        properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
        required = schema.get("required", ()) if isinstance(schema, dict) else ()
        kinds = tuple((str(n), str((properties.get(n) or {}).get("type", "string"))) for n in required)
        tools.append(Tool(function["name"], kinds))
    return tuple(tools)
