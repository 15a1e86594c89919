"""OpenAI's API as Ollama and llama.cpp offer it: completions, embeddings, models; streams are server-sent events."""

import base64
import json
import struct
from typing import Any

from cloudtolocalllm.demo.answer import Answer, Dialect, Outcome, encode, encode_text
from cloudtolocalllm.demo.call import Call, Refused, Route
from cloudtolocalllm.demo.ollama import named_model
from cloudtolocalllm.demo.request import Generate, conversation, member, offered_tools, text_of
from cloudtolocalllm.demo.script import ToolCall, count_tokens, embedding

SSE = b"text/event-stream"
OWNER = "cloudtolocalllm-demo"


def error_shape(status: int, message: str) -> dict[str, Any]:
    """Return OpenAI's error content."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + encode(value) + b"\n\n"


def usage(outcome: Outcome) -> dict[str, int]:
    """Return the token counts."""
    total = outcome.prompt_tokens + outcome.tokens
    return {"prompt_tokens": outcome.prompt_tokens, "completion_tokens": outcome.tokens, "total_tokens": total}


def function_calls(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    """Return calls of tools as OpenAI writes them."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in calls
    ]


class _Dialect:
    """What chat and text completions have in common."""

    content_type = SSE

    def __init__(self, call: Call, model: str, kind: str, *, with_usage: bool) -> None:
        created = call.engine.clock.wall()
        self._id = f"{'chatcmpl' if kind.startswith('chat') else 'cmpl'}-{int(created * 1000) % 10**9}"
        self._base = {"id": self._id, "created": int(created), "model": model, "system_fingerprint": "fp_demo"}
        self._with_usage = with_usage

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return an error's content."""
        return error_shape(status, message)

    def failed(self, message: str) -> bytes:
        """Return an error event; the stream ends without [DONE]."""
        return event(error_shape(500, message))

    def _tail(self, outcome: Outcome, kind: str) -> bytes:
        tail = b"data: [DONE]\n\n"
        if self._with_usage:
            tail = event({**self._base, "object": kind, "choices": [], "usage": usage(outcome)}) + tail
        return tail


class ChatDialect(_Dialect):
    """`/v1/chat/completions`."""

    _KIND = "chat.completion.chunk"

    def __init__(self, call: Call, model: str, *, with_usage: bool) -> None:
        super().__init__(call, model, "chat", with_usage=with_usage)
        head = encode({**self._base, "object": self._KIND})[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"finish_reason":null}]}\n\n'
        self._called = False

    def opening(self) -> bytes:
        """Return the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def thinking(self, text: str) -> bytes:
        """Return an event, with the member that Ollama uses."""
        return self._chunk({"content": "", "reasoning": text})

    def call(self, call: ToolCall, index: int) -> bytes:
        """Return an event."""
        return self._chunk({"tool_calls": [{"index": index, **function_calls((call,))[0]}]})

    def token(self, text: str) -> bytes:
        """Return an event."""
        return self._before + encode_text(text) + self._after

    def closing(self, outcome: Outcome) -> bytes:
        """Return the finish reason, the usage if asked for, and the end mark."""
        return self._chunk({}, self._reason(outcome)) + self._tail(outcome, self._KIND)

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": outcome.text}
        if outcome.thinking:
            message["reasoning"] = outcome.thinking
        if outcome.calls:
            message["tool_calls"] = function_calls(outcome.calls)
        choice = {"index": 0, "message": message, "finish_reason": self._reason(outcome)}
        return {**self._base, "object": "chat.completion", "choices": [choice], "usage": usage(outcome)}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({**self._base, "object": self._KIND, "choices": [choice]})

    @staticmethod
    def _reason(outcome: Outcome) -> str:
        return "tool_calls" if outcome.calls else outcome.reason


class CompletionDialect(_Dialect):
    """`/v1/completions`."""

    _KIND = "text_completion"

    def __init__(self, call: Call, model: str, *, with_usage: bool) -> None:
        super().__init__(call, model, "text", with_usage=with_usage)

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def thinking(self, text: str) -> bytes:
        """Nothing: this route has no thinking."""
        return b""

    def call(self, call: ToolCall, index: int) -> bytes:
        """Nothing: this route has no tools."""
        return b""

    def token(self, text: str) -> bytes:
        """Return an event."""
        return self._chunk(text, None)

    def closing(self, outcome: Outcome) -> bytes:
        """Return the finish reason and the end mark."""
        return self._chunk("", outcome.reason) + self._tail(outcome, self._KIND)

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        choice = {"index": 0, "text": outcome.text, "finish_reason": outcome.reason, "logprobs": None}
        return {**self._base, "object": self._KIND, "choices": [choice], "usage": usage(outcome)}

    def _chunk(self, text: str, reason: str | None) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        return event({**self._base, "object": self._KIND, "choices": [choice]})


def chat_request(call: Call, value: dict[str, Any], messages: tuple[dict[str, Any], ...]) -> Generate:
    """Return what a chat request in OpenAI's or Anthropic's shape asks for."""
    users = [m for m in messages if m.get("role") == "user"] or list(messages[-1:])
    prompt, images = text_of(users[-1].get("content")) if users else ("", 0)
    last = messages[-1] if messages else {}
    content = last.get("content")
    results = isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in content
    )
    limit = "max_completion_tokens" if value.get("max_completion_tokens") else "max_tokens"
    return Generate(
        model=named_model(call, value),
        prompt=prompt,
        # Clients of OpenAI's API can add members: extra_body={"options": {…}} in the official one.
        pace=call.paced(member(value, "options", dict, {})),
        messages=messages,
        prompt_tokens=sum(count_tokens(text_of(m.get("content"))[0]) for m in messages),
        max_tokens=member(value, limit, int, None),
        tools=offered_tools(value),
        images=images,
        after_tool=last.get("role") == "tool" or results,
    )


def begin(call: Call, value: dict[str, Any], request: Generate, dialect: Dialect) -> None:
    """Start an answer, streamed only if asked for."""
    stream = member(value, "stream", bool, False)
    keep = call.engine.keep_alive
    call.begin(Answer(call.engine, request, dialect, call.responder, stream=stream, keep=keep))


def chat(call: Call) -> None:
    """`POST /v1/chat/completions`."""
    value = call.json()
    messages = conversation(value)
    request = chat_request(call, value, messages)
    if not messages:
        raise Refused(400, "[] is too short - 'messages'")
    begin(call, value, request, ChatDialect(call, request.model, with_usage=_wants_usage(value)))


def completions(call: Call) -> None:
    """`POST /v1/completions`."""
    value = call.json()
    prompt = value.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise Refused(400, "expected prompt to be a string")
    request = Generate(
        model=named_model(call, value),
        prompt=prompt,
        pace=call.paced(member(value, "options", dict, {})),
        max_tokens=member(value, "max_tokens", int, None),
    )
    begin(call, value, request, CompletionDialect(call, request.model, with_usage=_wants_usage(value)))


def _wants_usage(value: dict[str, Any]) -> bool:
    return bool(member(value, "stream_options", dict, {}).get("include_usage"))


def embeddings(call: Call) -> None:
    """`POST /v1/embeddings`; the official client asks for base64."""
    value = call.json()
    model = named_model(call, value)
    texts = value.get("input")
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "expected input to be a string or an array of strings")
    in_base64 = value.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _packed(vector) if in_base64 else vector}
        for i, vector in enumerate(embedding(text) for text in texts)
    ]
    count = sum(count_tokens(text) for text in texts)
    tokens = {"prompt_tokens": count, "total_tokens": count}
    call.respond_json(200, {"object": "list", "data": data, "model": model, "usage": tokens})


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def models(call: Call) -> None:
    """`GET /v1/models`."""
    listed = [
        {"id": model.name, "object": "model", "created": int(model.modified), "owned_by": OWNER}
        for model in call.engine.residence.models.values()
    ]
    call.respond_json(200, {"object": "list", "data": listed})


ROUTES = {
    ("GET", "/v1/models"): Route(models, error_shape),
    ("POST", "/v1/chat/completions"): Route(chat, error_shape),
    ("POST", "/v1/completions"): Route(completions, error_shape),
    ("POST", "/v1/embeddings"): Route(embeddings, error_shape),
}
