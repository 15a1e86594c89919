"""The application in memory: requests are handed to it as the HTTP server would, responses are recorded."""

import asyncio
import json
from typing import Any

import pytest

from cloudtolocalllm.demo.service import DemoApp
from cloudtolocalllm.demo.settings import DemoSettings
from cloudtolocalllm.runtime.http1 import Body, Headers, Request, RequestHandler
from cloudtolocalllm.runtime.http1.messages import NO_BODY

FAST = DemoSettings(tokens_per_second=0, load_seconds=0, prefill_seconds=0)


class Recorder:
    """A Responder that keeps what it is told."""

    peer = "127.0.0.1"

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.content = b""
        self.writes = 0
        self.aborted = False
        self.ended = asyncio.Event()

    def inform(self, status: int, headers: Headers) -> None:
        raise AssertionError("not used")

    def start(self, status: int, headers: Headers, body: Body) -> None:
        assert not self.status
        self.status, self.headers = status, headers

    def write(self, data: bytes) -> None:
        assert self.status
        assert not self.ended.is_set()
        self.content += data
        self.writes += 1

    def end(self, trailers: Headers = ()) -> None:
        assert not self.ended.is_set()
        self.ended.set()

    def abort(self) -> None:
        self.aborted = True
        self.ended.set()

    def respond(self, status: int, headers: Headers, content: bytes) -> None:
        self.start(status, headers, NO_BODY)
        self.content = content
        self.ended.set()

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def hijack(self) -> tuple[asyncio.Transport, bytes]:
        raise AssertionError("not used")

    def json(self) -> Any:
        return json.loads(self.content)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.content.splitlines()]

    def events(self) -> list[dict[str, Any]]:
        data = [line[6:] for line in self.content.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(line) for line in data]


def ask(
    app: DemoApp, method: str, target: str, content: bytes | dict[str, Any] = b"", **fields: str
) -> tuple[RequestHandler, Recorder]:
    headers = {"host": "localhost", **fields}
    request = Request(
        method=method,
        target=target,
        headers=tuple((k.encode(), v.encode()) for k, v in headers.items()),
        body=NO_BODY,
        http_version="1.1",
        keep_alive=True,
        upgrade=None,
        expect_continue=False,
        raw_head=b"",
    )
    recorder = Recorder()
    handler = app(request, recorder)
    handler.on_body(content if isinstance(content, bytes) else json.dumps(content).encode())
    handler.on_body_end(())
    return handler, recorder


async def answer(app: DemoApp, method: str, target: str, content: bytes | dict[str, Any] = b"") -> Recorder:
    _, recorder = ask(app, method, target, content)
    await asyncio.wait_for(recorder.ended.wait(), 5)
    return recorder


def hello(**members: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": "Hello there"}], **members}


async def test_root_says_what_ollama_says() -> None:
    got = await answer(DemoApp(FAST), "GET", "/")
    assert (got.status, got.content) == (200, b"Ollama is running")


async def test_chat_streams_lines_and_ends_with_figures() -> None:
    got = await answer(DemoApp(FAST), "POST", "/api/chat", hello())
    *tokens, last = got.lines()
    assert all(line["done"] is False and line["model"] == "demo" and line["created_at"] for line in tokens)
    assert "> Hello there" in "".join(line["message"]["content"] for line in tokens)
    assert last["done"] is True
    assert last["done_reason"] == "stop"
    assert last["eval_count"] == len(tokens) == got.writes - 1
    assert last["total_duration"] >= last["eval_duration"] >= 0
    assert last["prompt_eval_count"] > 0


async def test_every_api_streams_the_same_text() -> None:
    app = DemoApp(FAST)
    chat = "".join(line["message"]["content"] for line in (await answer(app, "POST", "/api/chat", hello())).lines())
    generate = {"model": "demo:latest", "prompt": "Hello there"}
    completion = {**generate, "stream": True}
    lines = (await answer(app, "POST", "/api/generate", generate)).lines()
    assert "".join(line["response"] for line in lines) == chat
    sse = (await answer(app, "POST", "/v1/chat/completions", hello(stream=True))).events()
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in sse) == chat
    text = (await answer(app, "POST", "/v1/completions", completion)).events()
    assert "".join(e["choices"][0]["text"] for e in text) == chat
    claude = (await answer(app, "POST", "/v1/messages", hello(stream=True, max_tokens=10**6))).events()
    assert "".join(e["delta"].get("text", "") for e in claude if e["type"] == "content_block_delta") == chat
    new = (await answer(app, "POST", "/v1/responses", {**completion, "input": "Hello there"})).events()
    assert "".join(e["delta"] for e in new if e["type"] == "response.output_text.delta") == chat
    whole = await answer(app, "POST", "/api/chat", hello(stream=False))
    assert whole.json()["message"]["content"] == chat


async def test_openai_stream_has_role_usage_and_end_mark() -> None:
    content = hello(stream=True, stream_options={"include_usage": True}, max_tokens=3)
    got = await answer(DemoApp(FAST), "POST", "/v1/chat/completions", content)
    first, *tokens, finish, usage = got.events()
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == 3
    assert finish["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["choices"] == []
    assert got.content.endswith(b"data: [DONE]\n\n")


async def test_num_predict_and_demo_tokens_set_the_length() -> None:
    app = DemoApp(FAST)
    short = (await answer(app, "POST", "/api/chat", hello(options={"num_predict": 5}))).lines()
    assert (len(short), short[-1]["done_reason"]) == (6, "length")
    exact = (await answer(app, "POST", "/api/chat", hello(options={"demo_tokens": 1000}))).lines()
    assert (len(exact), exact[-1]["done_reason"]) == (1001, "stop")


async def test_timestamps_and_padding_replace_tokens() -> None:
    app = DemoApp(FAST)
    stamped = (await answer(app, "POST", "/api/chat", hello(options={"demo_timestamps": True}))).lines()
    stamps = [int(line["message"]["content"]) for line in stamped[:-1]]
    assert stamps == sorted(stamps)
    padded = (await answer(app, "POST", "/api/chat", hello(options={"demo_token_bytes": 100}))).lines()
    assert {len(line["message"]["content"].encode()) for line in padded[:-1]} == {100}


@pytest.mark.parametrize(
    ("target", "content", "status", "message"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", b"{", 400, "invalid JSON: expected an object"),
        ("/api/chat", b"[" * 100_000, 400, "invalid JSON: expected an object"),
        ("/api/chat", b"[]", 400, "invalid JSON: expected an object"),
        ("/api/chat", b"{}", 400, "model is required"),
        ("/api/chat", b'{"model": 7}', 400, "expected model to be a string"),
        ("/api/chat", b'{"model": "no"}', 404, "model 'no' not found"),
        ("/api/chat", b'{"model": "demo", "messages": [1]}', 400, "expected messages to be an array of objects"),
        (
            "/api/chat",
            b'{"model":"demo","messages":[{}],"options":{"demo_tokens":""}}',
            400,
            "expected option demo_tokens to be a int",
        ),
        ("/api/show", b'{"model": "no"}', 404, "model 'no' not found"),
        ("/api/embed", b'{"model": "demo", "input": 7}', 400, "invalid input type"),
        (
            "/api/generate",
            b'{"model":"demo","prompt":"x","keep_alive":"soon"}',
            400,
            'expected keep_alive to be a number of seconds or a duration such as "5m"',
        ),
    ],
)
async def test_ollama_errors(target: str, content: bytes, status: int, message: str) -> None:
    got = await answer(DemoApp(FAST), "POST", target, content)
    assert (got.status, got.json()) == (status, {"error": message})


async def test_openai_and_anthropic_errors_have_their_shape() -> None:
    app = DemoApp(FAST)
    got = await answer(app, "POST", "/v1/chat/completions", hello(model="no"))
    assert (got.status, got.json()["error"]["type"]) == (404, "not_found_error")
    got = await answer(app, "POST", "/v1/messages", hello(model="no"))
    assert (got.status, got.json()["type"], got.json()["error"]["type"]) == (404, "error", "not_found_error")


async def test_unknown_routes_and_methods() -> None:
    app = DemoApp(FAST)
    assert (await answer(app, "GET", "/nothing")).status == 404
    assert (await answer(app, "DELETE", "/api/chat")).status == 405


async def test_foreign_pages_and_hosts_are_refused() -> None:
    app = DemoApp(FAST)
    assert ask(app, "GET", "/api/tags", origin="https://example.com")[1].status == 403
    assert ask(app, "GET", "/api/tags", host="rebound.example")[1].status == 403
    _, allowed = ask(app, "GET", "/api/tags", origin="http://localhost:5173")
    assert allowed.status == 200
    assert (b"access-control-allow-origin", b"http://localhost:5173") in allowed.headers


async def test_tool_calls_in_each_shape() -> None:
    app = DemoApp(FAST)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    asked = [{"role": "user", "content": "use tool weather"}]
    line, last = (await answer(app, "POST", "/api/chat", hello(messages=asked, tools=tools))).lines()
    (call,) = line["message"]["tool_calls"]
    assert call["function"]["arguments"] == {"city": "demo"}
    assert last["done_reason"] == "stop"
    got = await answer(app, "POST", "/v1/chat/completions", hello(messages=asked, tools=tools))
    choice = got.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "demo"}
    claude = [{"name": "weather", "input_schema": schema}]
    got = await answer(app, "POST", "/v1/messages", hello(messages=asked, tools=claude))
    assert got.json()["stop_reason"] == "tool_use"
    assert got.json()["content"][0]["input"] == {"city": "demo"}


async def test_thinking_is_a_member_of_its_own() -> None:
    lines = (await answer(DemoApp(FAST), "POST", "/api/chat", hello(think=True))).lines()
    assert any(line["message"].get("thinking") for line in lines)
    assert not any(line["message"].get("thinking") and line["message"]["content"] for line in lines)


async def test_embeddings_of_both_apis_agree() -> None:
    app = DemoApp(FAST)
    native = (await answer(app, "POST", "/api/embed", {"model": "demo", "input": ["a", "b"]})).json()
    older = (await answer(app, "POST", "/api/embeddings", {"model": "demo", "prompt": "a"})).json()
    foreign = (await answer(app, "POST", "/v1/embeddings", {"model": "demo", "input": ["a", "b"]})).json()
    assert native["embeddings"][0] == older["embedding"] == foreign["data"][0]["embedding"]
    assert native["embeddings"][1] == foreign["data"][1]["embedding"]


async def test_an_empty_request_loads_and_keep_alive_zero_unloads() -> None:
    app = DemoApp(FAST)
    got = await answer(app, "POST", "/api/generate", {"model": "demo"})
    assert got.json()["done_reason"] == "load"
    (loaded,) = (await answer(app, "GET", "/api/ps")).json()["models"]
    assert loaded["name"] == "demo:latest"
    got = await answer(app, "POST", "/api/generate", {"model": "demo", "keep_alive": 0})
    assert got.json()["done_reason"] == "unload"
    assert (await answer(app, "GET", "/api/ps")).json()["models"] == []
    app.engine.residence.close()


async def test_a_client_that_goes_away_stops_its_answer() -> None:
    app = DemoApp(FAST)
    handler, recorder = ask(app, "POST", "/api/chat", hello(options={"demo_tokens": 10**6}))
    while recorder.writes < 100:  # noqa: ASYNC110 - only the loop needs to turn
        await asyncio.sleep(0)
    handler.on_disconnect()
    count = recorder.writes
    for _ in range(50):
        await asyncio.sleep(0)
    assert recorder.writes == count
    stats = app.engine.stats
    assert (stats.started, stats.running, stats.cancelled, stats.completed) == (1, 0, 1, 0)


async def test_a_client_that_goes_away_while_the_model_loads_ends_the_load() -> None:
    app = DemoApp(DemoSettings(load_seconds=60))
    handler, _ = ask(app, "POST", "/api/chat", hello())
    handler.on_disconnect()
    assert (app.engine.residence.loads, app.engine.residence.loads_aborted) == (1, 1)
    assert app.engine.stats.running == 0


async def test_two_requests_share_a_load_and_one_may_go_away() -> None:
    app = DemoApp(DemoSettings(load_seconds=0.01, prefill_seconds=0, tokens_per_second=0))
    gone, _ = ask(app, "POST", "/api/chat", hello())
    _, stays = ask(app, "POST", "/api/chat", hello())
    gone.on_disconnect()
    await asyncio.wait_for(stays.ended.wait(), 5)
    assert (app.engine.residence.loads, app.engine.residence.loads_aborted) == (1, 0)
    assert stays.lines()[-1]["load_duration"] > 0
    app.engine.residence.close()


async def test_a_slow_reader_holds_its_answer_up_and_loses_nothing() -> None:
    app = DemoApp(FAST)
    handler, recorder = ask(app, "POST", "/api/chat", hello(options={"demo_tokens": 500}))
    while recorder.writes < 10:  # noqa: ASYNC110 - only the loop needs to turn
        await asyncio.sleep(0)
    handler.on_writable(False)
    count = recorder.writes
    for _ in range(50):
        await asyncio.sleep(0)
    assert recorder.writes == count < 500
    handler.on_writable(True)
    await asyncio.wait_for(recorder.ended.wait(), 5)
    assert len(recorder.lines()) == 501


async def test_faults() -> None:
    app = DemoApp(FAST)
    failed = await answer(app, "POST", "/api/chat", hello(options={"demo_fail_after_tokens": 3}))
    assert len(failed.lines()) == 4
    assert "error" in failed.lines()[-1]
    died = await answer(app, "POST", "/api/chat", hello(options={"demo_die_after_tokens": 3}))
    assert died.aborted
    assert len(died.lines()) == 3
    refused = await answer(app, "POST", "/v1/chat/completions", hello(options={"demo_http_error": 503}))
    assert refused.status == 503
    handler, hanging = ask(app, "POST", "/api/chat", hello(options={"demo_hang_after_tokens": 3}))
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert (hanging.writes, hanging.ended.is_set()) == (3, False)
    handler.on_disconnect()
    assert (app.engine.stats.running, app.engine.stats.failed) == (0, 3)


async def test_pull_reports_progress_and_only_of_demo_models() -> None:
    app = DemoApp(FAST)
    lines = (await answer(app, "POST", "/api/pull", {"model": "demo:big"})).lines()
    assert lines[0] == {"status": "pulling manifest"}
    progress = [line["completed"] for line in lines if "completed" in line]
    assert progress == sorted(progress)
    assert lines[-1] == {"status": "success"}
    names = [m["name"] for m in (await answer(app, "GET", "/api/tags")).json()["models"]]
    assert names == ["demo:latest", "demo:big"]
    assert (await answer(app, "DELETE", "/api/delete", {"model": "demo:big"})).status == 200
    assert (await answer(app, "DELETE", "/api/delete", {"model": "demo:big"})).status == 404
    refused = (await answer(app, "POST", "/api/pull", {"model": "llama3.2", "stream": False})).json()
    assert "file does not exist" in refused["error"]


async def test_cloud_models_are_marked_as_ollama_marks_them() -> None:
    app = DemoApp(DemoSettings(models=("demo", "big:120b-cloud")))
    own, remote = (await answer(app, "GET", "/api/tags")).json()["models"]
    assert "remote_host" not in own
    assert remote["remote_host"] == "https://ollama.com:443"
