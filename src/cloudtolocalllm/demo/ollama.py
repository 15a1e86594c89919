"""Ollama's own API (docs/api.md of that project): NDJSON streams, durations in nanoseconds."""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cloudtolocalllm.demo.answer import Answer, Outcome, encode, encode_text
from cloudtolocalllm.demo.call import Call, Refused, Route
from cloudtolocalllm.demo.pull import Pull
from cloudtolocalllm.demo.request import (
    Generate,
    MalformedError,
    conversation,
    member,
    offered_tools,
    text_of,
)
from cloudtolocalllm.demo.residence import Model
from cloudtolocalllm.demo.script import ToolCall, count_tokens, embedding

VERSION = "0.12.6"
"""The version of Ollama whose behaviour is followed."""
NAME = "cloudtolocalllm-demo"
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def error_shape(status: int, message: str) -> dict[str, Any]:
    """Return Ollama's error content."""
    return {"error": message}


@lru_cache(maxsize=4)
def _second(wall: int) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(wall: float) -> str:
    """Return RFC 3339 text, UTC; called for every token, so the second's text is kept."""
    second = int(wall)
    return f"{_second(second)}.{int((wall - second) * 1e6):06d}Z"


def seconds(value: Any, default: float) -> float:
    """Read a keep_alive: a number of seconds or a duration such as "5m".

    Raises:
        MalformedError: It is neither.
    """
    if value is None:
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _DURATION.sub("", value) == "" and value:
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value))
    raise MalformedError('expected keep_alive to be a number of seconds or a duration such as "5m"')


class _Dialect:
    """What chat and generate have in common."""

    content_type = b"application/x-ndjson"

    def __init__(self, call: Call, model: str) -> None:
        self._wall = call.engine.clock.wall
        self._model = model
        self._began = time.monotonic_ns()
        self._prefix = b'{"model":' + encode(model) + b',"created_at":"'

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def failed(self, message: str) -> bytes:
        """Return an error line."""
        return encode(error_shape(500, message)) + b"\n"

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return an error's content."""
        return error_shape(status, message)

    def _line(self, content: bytes) -> bytes:
        stamp = timestamp(self._wall()).encode()
        return self._prefix + stamp + b'",' + content + b',"done":false}\n'

    def _final(self, outcome: Outcome, content: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": self._model,
            "created_at": timestamp(self._wall()),
            **content,
            "done": True,
            "done_reason": outcome.reason,
            "total_duration": time.monotonic_ns() - self._began,
            "load_duration": outcome.load,
            "prompt_eval_count": outcome.prompt_tokens,
            "prompt_eval_duration": outcome.prefill,
            "eval_count": outcome.tokens,
            "eval_duration": outcome.generation,
        }


def _calls(calls: tuple[ToolCall, ...], first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "function": {"index": first + i, "name": call.name, "arguments": call.arguments}}
        for i, call in enumerate(calls)
    ]


class ChatDialect(_Dialect):
    """`/api/chat`."""

    def thinking(self, text: str) -> bytes:
        """Return a line."""
        return self._line(b'"message":{"role":"assistant","content":"","thinking":' + encode(text) + b"}")

    def call(self, call: ToolCall, index: int) -> bytes:
        """Return a line."""
        calls = encode(_calls((call,), index))
        return self._line(b'"message":{"role":"assistant","content":"","tool_calls":' + calls + b"}")

    def token(self, text: str) -> bytes:
        """Return a line."""
        return self._line(b'"message":{"role":"assistant","content":' + encode_text(text) + b"}")

    def closing(self, outcome: Outcome) -> bytes:
        """Return the last line."""
        return encode(self._final(outcome, {"message": {"role": "assistant", "content": ""}})) + b"\n"

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": outcome.text}
        if outcome.thinking:
            message["thinking"] = outcome.thinking
        if outcome.calls:
            message["tool_calls"] = _calls(outcome.calls)
        return self._final(outcome, {"message": message})


class GenerateDialect(_Dialect):
    """`/api/generate`."""

    def thinking(self, text: str) -> bytes:
        """Return a line."""
        return self._line(b'"response":"","thinking":' + encode(text))

    def call(self, call: ToolCall, index: int) -> bytes:
        """Return a line without content: this route has no tools."""
        return self._line(b'"response":""')

    def token(self, text: str) -> bytes:
        """Return a line."""
        return self._line(b'"response":' + encode_text(text))

    def closing(self, outcome: Outcome) -> bytes:
        """Return the last line."""
        return encode(self._final(outcome, {"response": "", "context": [1, 2, 3]})) + b"\n"

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        return self._final(outcome, {"response": outcome.text, "context": [1, 2, 3]})


def named_model(call: Call, value: dict[str, Any]) -> str:
    """Return the model that a request names, which the engine has.

    Raises:
        Refused: 400 without a name, 404 without such a model.
    """
    name: str = member(value, "model", str, "") or member(value, "name", str, "")
    if not name:
        raise Refused(400, "model is required")
    if call.engine.residence.find(name) is None:
        raise Refused(404, f"model '{name}' not found")
    return name


def _answer(call: Call, value: dict[str, Any], request: Generate, dialect: ChatDialect | GenerateDialect) -> None:
    keep = seconds(value.get("keep_alive"), call.engine.keep_alive)
    stream = member(value, "stream", bool, True)
    call.begin(Answer(call.engine, request, dialect, call.responder, stream=stream, keep=keep))


def _load_only(call: Call, value: dict[str, Any], model: str, content: dict[str, Any]) -> None:
    """An empty request loads the model, or unloads it with keep_alive 0."""
    keep = seconds(value.get("keep_alive"), call.engine.keep_alive)
    residence = call.engine.residence

    def done() -> None:
        residence.keep(model, keep)
        head = {"model": model, "created_at": timestamp(call.engine.clock.wall())}
        call.respond_json(200, {**head, **content, "done": True, "done_reason": "load" if keep else "unload"})

    if keep == 0:
        done()
        return
    wait = residence.load(model, call.paced(member(value, "options", dict, {})).load_seconds, done)
    call.on_gone = wait.cancel


def chat(call: Call) -> None:
    """`POST /api/chat`."""
    value = call.json()
    model = named_model(call, value)
    messages = conversation(value)
    if not messages:
        _load_only(call, value, model, {"message": {"role": "assistant", "content": ""}})
        return
    options = member(value, "options", dict, {})
    last = next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1])
    request = Generate(
        model=model,
        prompt=text_of(last.get("content"))[0],
        pace=call.paced(options),
        messages=messages,
        prompt_tokens=sum(count_tokens(text_of(m.get("content"))[0]) for m in messages),
        max_tokens=member(options, "num_predict", int, None),
        tools=offered_tools(value),
        think=bool(value.get("think")),
        images=len(member(last, "images", list, [])),
        after_tool=messages[-1].get("role") == "tool",
    )
    _answer(call, value, request, ChatDialect(call, model))


def generate(call: Call) -> None:
    """`POST /api/generate`."""
    value = call.json()
    model = named_model(call, value)
    prompt = member(value, "prompt", str, "")
    if not prompt:
        _load_only(call, value, model, {"response": ""})
        return
    options = member(value, "options", dict, {})
    request = Generate(
        model=model,
        prompt=prompt,
        pace=call.paced(options),
        max_tokens=member(options, "num_predict", int, None),
        think=bool(value.get("think")),
        images=len(member(value, "images", list, [])),
    )
    _answer(call, value, request, GenerateDialect(call, model))


def embed(call: Call) -> None:
    """`POST /api/embed`."""
    value = call.json()
    model = named_model(call, value)
    texts = value.get("input")
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "invalid input type")
    count = sum(count_tokens(text) for text in texts)
    durations = {"total_duration": 1_000_000, "load_duration": 0, "prompt_eval_count": count}
    call.respond_json(200, {"model": model, "embeddings": [embedding(text) for text in texts], **durations})


def embeddings(call: Call) -> None:
    """`POST /api/embeddings`, the older form."""
    value = call.json()
    named_model(call, value)
    call.respond_json(200, {"embedding": embedding(member(value, "prompt", str, ""))})


def tags(call: Call) -> None:
    """`GET /api/tags`."""
    call.respond_json(200, {"models": [_listed(model) for model in call.engine.residence.models.values()]})


def _listed(model: Model) -> dict[str, Any]:
    remote = {"remote_model": model.name, "remote_host": "https://ollama.com:443"} if model.remote else {}
    return {
        "name": model.name, "model": model.name, **remote, "modified_at": timestamp(model.modified),
        "size": model.size, "digest": model.digest, "details": model.details,
    }  # fmt: skip


def ps(call: Call) -> None:
    """`GET /api/ps`."""
    call.respond_json(
        200,
        {
            "models": [
                {**_listed(model), "expires_at": timestamp(expires), "size_vram": 0, "context_length": 4096}
                for model, expires in call.engine.residence.loaded()
            ]
        },
    )


def show(call: Call) -> None:
    """`POST /api/show`."""
    value = call.json()
    name = named_model(call, value)
    model = call.engine.residence.find(name)
    if model is None:  # named_model has just found it
        raise Refused(404, f"model '{name}' not found")
    call.respond_json(
        200,
        {
            "license": "MIT",
            "modelfile": "# A scripted demo engine, not a model\nFROM scratch\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": model.details,
            "model_info": {"general.architecture": "scripted", "scripted.context_length": 4096},
            "capabilities": ["completion", "tools", "thinking", "vision", "embedding"],
            "modified_at": timestamp(model.modified),
        },
    )


def pull(call: Call) -> None:
    """`POST /api/pull`: only further names for the demo can be had; there is nothing to download."""
    value = call.json()
    name = member(value, "model", str, "") or member(value, "name", str, "")
    if not name:
        raise Refused(400, "model is required")
    work = Pull(call, name, stream=member(value, "stream", bool, True))
    call.on_gone = work.cancel
    work.start()


def delete(call: Call) -> None:
    """`DELETE /api/delete`."""
    call.engine.residence.remove(named_model(call, call.json()))
    call.responder.respond(200, call.extra, b"")


def running(call: Call) -> None:
    """`GET /` and `HEAD /`."""
    call.respond_text(200, "Ollama is running")


def version(call: Call) -> None:
    """`GET /api/version`."""
    call.respond_json(200, {"version": VERSION, "engine": NAME})


ROUTES = {
    (method, path): Route(run, error_shape)
    for method, path, run in (
        ("GET", "/", running),
        ("HEAD", "/", running),
        ("GET", "/api/version", version),
        ("HEAD", "/api/version", version),
        ("GET", "/api/tags", tags),
        ("HEAD", "/api/tags", tags),
        ("GET", "/api/ps", ps),
        ("POST", "/api/show", show),
        ("POST", "/api/chat", chat),
        ("POST", "/api/generate", generate),
        ("POST", "/api/embed", embed),
        ("POST", "/api/embeddings", embeddings),
        ("POST", "/api/pull", pull),
        ("DELETE", "/api/delete", delete),
    )
}
