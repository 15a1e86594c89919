"""Anthropic's Messages API, as Ollama and llama.cpp offer it."""

import json
from typing import Any

from cloudtolocalllm.demo.answer import Outcome, encode
from cloudtolocalllm.demo.call import Call, Refused, Route
from cloudtolocalllm.demo.openai import SSE, begin, chat_request
from cloudtolocalllm.demo.request import conversation
from cloudtolocalllm.demo.script import ToolCall


def error_shape(status: int, message: str) -> dict[str, Any]:
    """Return Anthropic's error content."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


class MessagesDialect:
    """`/v1/messages`."""

    content_type = SSE

    def __init__(self, call: Call, model: str, prompt_tokens: int) -> None:
        self._base = {
            "id": f"msg_{int(call.engine.clock.wall() * 1000):x}", "type": "message", "role": "assistant",
            "model": model,
        }  # fmt: skip
        self._prompt_tokens = prompt_tokens
        self._block = -1
        self._open = ""

    def opening(self) -> bytes:
        """Return the start."""
        counts = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._base,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": counts,
        }
        return self._event("message_start", {"message": message}) + self._event("ping", {})

    def thinking(self, text: str) -> bytes:
        """Return a delta of a thinking block."""
        return self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}) + self._delta(
            {"type": "thinking_delta", "thinking": text}
        )

    def call(self, call: ToolCall, index: int) -> bytes:
        """Return a block."""
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        return (
            self._leave()
            + self._enter(f"tool {index}", block)
            + self._delta({"type": "input_json_delta", "partial_json": json.dumps(call.arguments)})
        )

    def token(self, text: str) -> bytes:
        """Return a delta of a text block."""
        return self._enter("text", {"type": "text", "text": ""}) + self._delta({"type": "text_delta", "text": text})

    def closing(self, outcome: Outcome) -> bytes:
        """Return the end."""
        delta = {"stop_reason": self._reason(outcome), "stop_sequence": None}
        end = {"delta": delta, "usage": {"output_tokens": outcome.tokens}}
        return self._leave() + self._event("message_delta", end) + self._event("message_stop", {})

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        content: list[dict[str, Any]] = []
        if outcome.text:
            content.append({"type": "text", "text": outcome.text})
        content += [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in outcome.calls]
        counts = {"input_tokens": outcome.prompt_tokens, "output_tokens": outcome.tokens}
        reason = {"stop_reason": self._reason(outcome), "stop_sequence": None}
        return {**self._base, "content": content, **reason, "usage": counts}

    def failed(self, message: str) -> bytes:
        """Return an error event."""
        return self._event("error", {"error": error_shape(500, message)["error"]})

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return an error's content."""
        return error_shape(status, message)

    @staticmethod
    def _reason(outcome: Outcome) -> str:
        return "tool_use" if outcome.calls else {"length": "max_tokens"}.get(outcome.reason, "end_turn")

    def _enter(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._open == kind:
            return b""
        left = self._leave()
        self._open = kind
        self._block += 1
        return left + self._event("content_block_start", {"index": self._block, "content_block": block})

    def _leave(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return self._event("content_block_stop", {"index": self._block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", {"index": self._block, "delta": delta})

    @staticmethod
    def _event(kind: str, value: dict[str, Any]) -> bytes:
        return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **value}) + b"\n\n"


def messages(call: Call) -> None:
    """`POST /v1/messages`."""
    value = call.json()
    said = conversation(value)
    request = chat_request(call, value, said)
    if not said:
        raise Refused(400, "messages: at least one message is required")
    begin(call, value, request, MessagesDialect(call, request.model, request.prompt_tokens))


ROUTES = {("POST", "/v1/messages"): Route(messages, error_shape)}
