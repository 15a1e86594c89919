"""Reads an engine's streamed answer (OpenAI's chat completions, server-sent events); pure.

Bytes in, pieces of text out, in any chunking the same. What is half there is kept until the rest comes: a line, a
tool call, half of a surrogate pair.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from cloudtolocalllm.bridge.store.runs import TextKind

MAX_LINE = 1024 * 1024
"""Bytes of one event."""
MAX_CALLS = 128
"""Tool calls in one answer."""
MAX_CALL = 256 * 1024
"""Characters of one call's arguments."""
MAX_DETAIL = 500
"""Characters of an engine's error that are shown."""


class _AnswerError(Exception):
    """The engine's answer is an error, or none that can be read. The text is for the user, never for a log."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    kind: TextKind
    text: str


class AnswerReader:
    """Reads one answer."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._calls: dict[int, _Call] = {}
        self._halves: dict[TextKind, str] = {}
        self.error = ""
        """What is wrong with the answer, for the user; "" for nothing. Nothing is read after it."""
        self.complete = False
        """Whether the engine said that this is all."""
        self.at_limit = False
        """Whether it ended at a limit of tokens, and not because the model was done."""
        self.prompt_tokens: int | None = None
        self.answer_tokens: int | None = None

    def feed(self, data: bytes) -> list[Text]:
        """Take content and return the text in it, as far as it is an answer; then see `error`."""
        texts: list[Text] = []
        try:
            if not self.error:
                self._feed(data, texts)
        except _AnswerError as error:
            self.error = str(error)
        return texts

    def _feed(self, data: bytes, texts: list[Text]) -> None:
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > MAX_LINE:
            raise _AnswerError("The engine sent a line that is too long.")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(bytes(line[5:]).strip(), texts)

    def end(self) -> list[Text]:
        """Take the end of the content and return what was still half there."""
        texts = self.feed(b"\n")
        texts += [Text(kind, "\ufffd") for kind, half in self._halves.items() if half]
        self._halves = {}
        if self.complete:
            texts += self._finished_calls()
        return texts

    def _event(self, data: bytes, texts: list[Text]) -> None:
        if data == b"[DONE]":
            self.complete = True
            return
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise _AnswerError("The engine sent an event that is not JSON.") from None
        if not isinstance(value, dict):
            raise _AnswerError("The engine sent an event that is no JSON object.")
        if "error" in value:
            raise _AnswerError(error_text(value))
        self._count(value.get("usage"))
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        if isinstance(delta := choice.get("delta"), dict):
            for name in ("reasoning_content", "reasoning"):
                if isinstance(thought := delta.get(name), str) and thought:
                    self._text(TextKind.THINKING, thought, texts)
                    break
            if isinstance(content := delta.get("content"), str) and content:
                self._text(TextKind.CONTENT, content, texts)
            if isinstance(calls := delta.get("tool_calls"), list):
                self._take_calls(calls)
        if reason := choice.get("finish_reason"):
            self.complete = True
            self.at_limit = reason == "length"

    def _text(self, kind: TextKind, text: str, texts: list[Text]) -> None:
        text = self._halves.pop(kind, "") + text
        if "\ud800" <= text[-1] <= "\udbff":  # the other half of the pair is in the next event
            self._halves[kind], text = text[-1], text[:-1]
        # Joins pairs that JSON's escapes spelt apart; a half that stays alone becomes the replacement character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if text:
            texts.append(Text(kind, text))

    def _take_calls(self, calls: list[Any]) -> None:
        for place, said in enumerate(calls):
            if not isinstance(said, dict):
                continue
            index = said.get("index")
            call = self._calls.setdefault(index if isinstance(index, int) else place, _Call())
            if len(self._calls) > MAX_CALLS:
                raise _AnswerError("The engine calls too many tools at once.")
            function = said.get("function")
            if isinstance(said.get("id"), str):
                call.id = said["id"]
            if isinstance(function, dict):
                if isinstance(function.get("name"), str):
                    call.name += function["name"]
                if isinstance(part := function.get("arguments"), str):
                    call.arguments.append(part)
                    call.size += len(part)
            if call.size > MAX_CALL or len(call.name) + len(call.id) > MAX_CALL:
                raise _AnswerError("The engine calls a tool with arguments that are too long.")

    def _finished_calls(self) -> list[Text]:
        calls, self._calls = self._calls, {}
        return [
            Text(
                TextKind.TOOL_CALL,
                json.dumps({"id": call.id, "name": call.name, "arguments": "".join(call.arguments)}) + "\n",
            )
            for _, call in sorted(calls.items())
        ]

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is int and type(answer) is int and 0 <= prompt < 2**53 and 0 <= answer < 2**53:
            self.prompt_tokens, self.answer_tokens = prompt, answer


def error_text(value: dict[str, Any]) -> str:
    """Return an engine's words of an error, cut to a length that can be shown."""
    error = value.get("error")
    text = error.get("message") if isinstance(error, dict) else error
    if not isinstance(text, str) or not text.strip():
        return "The engine reports an error without a text."
    clean = text.encode("utf-8", "replace").decode()
    return clean[:MAX_DETAIL]
