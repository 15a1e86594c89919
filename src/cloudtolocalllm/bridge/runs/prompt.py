"""Makes the request to an engine out of a conversation's path (OpenAI's chat completions); pure."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cloudtolocalllm.bridge.store.errors import ConflictError
from cloudtolocalllm.bridge.store.messages import Attached, Message

MAX_STOPS = 8
_FENCE = re.compile("`+")
MAX_OPTION_TEXT = 256


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How an engine is to answer; what is null is the engine's choice."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    reasoning_effort: str | None = None
    """Such as "low", "medium", "high"."""

    def check(self) -> None:
        """Check the values.

        Raises:
            ConflictError: One is out of its range.
        """
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise ConflictError("expected a temperature of 0 to 10")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ConflictError("expected top_p of 0 to 1")
        if self.max_tokens is not None and not 0 < self.max_tokens < 2**31:
            raise ConflictError("expected max_tokens of at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**53:
            raise ConflictError("expected a seed of 0 or more")
        texts = [*(self.stop or ()), self.reasoning_effort or ""]
        if len(texts) > MAX_STOPS + 1 or any(len(text) > MAX_OPTION_TEXT for text in texts):
            raise ConflictError(f"expected at most {MAX_STOPS} stop texts of {MAX_OPTION_TEXT} characters each")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "RunOptions":
        """Return what `given` returned."""
        stop = given.get("stop")
        return cls(**{**given, "stop": None if stop is None else tuple(stop)})

    def given(self) -> dict[str, Any]:
        """Return what is not null."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def attached_to(path: Sequence[Message]) -> list[str]:
    """Return the SHA-256 of every picture and text in a path; no engine reads what else may be attached."""
    return sorted({attached.sha256 for attached in _read(path)})


def attached_size(path: Sequence[Message]) -> int:
    """Return their bytes, as often as they stand in the path."""
    return sum(attached.size for attached in _read(path))


def _read(path: Sequence[Message]) -> list[Attached]:
    return [a for message in path for a in message.attachments if a.media_type.startswith(("image/", "text/"))]


def request(
    path: Sequence[Message], model: str, options: RunOptions, attached: Mapping[str, bytes], system: str = ""
) -> bytes:
    """Return the content of a request.

    Args:
        path: The messages up to the one to answer, the first one first.
        model: As the engine lists it.
        options: How to answer.
        attached: The pictures and texts of the path, by SHA-256.
        system: A system message to begin with, where the path has none; "" for none.
    """
    messages = [_message(message, attached) for message in path]
    if system and not any(message.role == "system" for message in path):
        messages.insert(0, {"role": "system", "content": system})
    return json.dumps(
        {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options.given(),
        }
    ).encode()


def _message(message: Message, attached: Mapping[str, bytes]) -> dict[str, Any]:
    there = [a for a in message.attachments if a.sha256 in attached]
    texts = [a for a in there if a.media_type.startswith("text/")]
    pictures = [a for a in there if a.media_type.startswith("image/")]
    content = "\n\n".join(
        [*([message.content] if message.content else []), *(_text(a.name, attached[a.sha256]) for a in texts)]
    )
    said: dict[str, Any] = {"role": message.role, "content": content}
    if pictures:
        said["content"] = [
            {"type": "text", "text": content},
            *(
                {
                    "type": "image_url",
                    "image_url": {
                        "url": f"data:{a.media_type};base64,{base64.b64encode(attached[a.sha256]).decode()}"
                    },
                }
                for a in pictures
            ),
        ]
    if message.role == "assistant" and message.tool_calls:
        said["tool_calls"] = [_call(text) for text in message.tool_calls]
    return said


def _text(name: str, content: bytes) -> str:
    """Return an attached text as part of a message, fenced so that its end is seen, whatever stands in it."""
    text = content.decode("utf-8", "replace")
    longest = max((len(run) for run in _FENCE.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{name or 'Attached text'}:\n{fence}\n{text}\n{fence}"


def _call(text: str) -> dict[str, Any]:
    call = json.loads(text)
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": call["name"], "arguments": call["arguments"]},
    }
