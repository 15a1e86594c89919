"""OpenAI's Responses API, as far as a text answer goes."""

from typing import Any

from cloudtolocalllm.demo.answer import Outcome, encode
from cloudtolocalllm.demo.call import Call, Refused, Route
from cloudtolocalllm.demo.openai import SSE, begin, chat_request, error_shape
from cloudtolocalllm.demo.request import conversation
from cloudtolocalllm.demo.script import ToolCall


class ResponsesDialect:
    """`/v1/responses`: named events with a sequence number."""

    content_type = SSE

    def __init__(self, call: Call, model: str) -> None:
        created = call.engine.clock.wall()
        self._number = -1
        self._text: list[str] = []
        self._item = f"msg_{int(created * 1000):x}"
        self._base = {
            "id": f"resp_{int(created * 1000):x}", "object": "response", "created_at": int(created), "model": model,
            "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "tools": [],
            "parallel_tool_calls": False, "tool_choice": "auto", "temperature": None, "top_p": None,
        }  # fmt: skip

    def opening(self) -> bytes:
        """Return the events that precede the text."""
        created = {"response": {**self._base, "status": "in_progress", "output": []}}
        item = {"id": self._item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        return (
            self._event("response.created", created)
            + self._event("response.output_item.added", {"output_index": 0, "item": item})
            + self._event("response.content_part.added", {**self._place(), "part": self._part("")})
        )

    def thinking(self, text: str) -> bytes:
        """Nothing."""
        return b""

    def call(self, call: ToolCall, index: int) -> bytes:
        """Nothing: tools are not scripted here."""
        return b""

    def token(self, text: str) -> bytes:
        """Return an event."""
        self._text.append(text)
        return self._event("response.output_text.delta", {**self._place(), "delta": text, "logprobs": []})

    def closing(self, outcome: Outcome) -> bytes:
        """Return the events that follow the text."""
        text = "".join(self._text)
        final = self._response(text, outcome)
        return (
            self._event("response.output_text.done", {**self._place(), "text": text, "logprobs": []})
            + self._event("response.content_part.done", {**self._place(), "part": self._part(text)})
            + self._event("response.output_item.done", {"output_index": 0, "item": final["output"][0]})
            + self._event("response.completed", {"response": final})
        )

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        return self._response(outcome.text, outcome)

    def failed(self, message: str) -> bytes:
        """Return an error event."""
        return self._event("error", {"message": message, "code": "server_error", "param": None})

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return an error's content."""
        return error_shape(status, message)

    def _response(self, text: str, outcome: Outcome) -> dict[str, Any]:
        item = {
            "id": self._item, "type": "message", "role": "assistant", "status": "completed",
            "content": [self._part(text)],
        }  # fmt: skip
        usage = {
            "input_tokens": outcome.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": outcome.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": outcome.prompt_tokens + outcome.tokens,
        }
        return {**self._base, "status": "completed", "output": [item], "usage": usage}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _event(self, kind: str, value: dict[str, Any]) -> bytes:
        self._number += 1
        numbered = {"type": kind, "sequence_number": self._number, **value}
        return b"event: " + kind.encode() + b"\ndata: " + encode(numbered) + b"\n\n"


def responses(call: Call) -> None:
    """`POST /v1/responses`."""
    value = call.json()
    given = value.get("input")
    if isinstance(given, str):
        messages: tuple[dict[str, Any], ...] = ({"role": "user", "content": given},)
    else:
        messages = conversation(value, "input")
    if not messages:
        raise Refused(400, "expected input to be a string or an array of messages")
    request = chat_request(call, {**value, "tools": [], "max_tokens": value.get("max_output_tokens")}, messages)
    begin(call, value, request, ResponsesDialect(call, request.model))


ROUTES = {("POST", "/v1/responses"): Route(responses, error_shape)}
