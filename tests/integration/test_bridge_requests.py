"""Requests through a real tunnel and a real bridge to engines over real HTTP."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.support.bridge_parts import home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.contracts.control import EngineState
from cloudtolocalllm.tunnel import ResetReason

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True}
ID = (b"c2l-exchange-id", b"exchange-0123456789")


async def stream_three(asked: Asked) -> None:
    asked.head(200, "content-type: text/event-stream", "server: llama.cpp", "set-cookie: a=b", chunked=True)
    for part in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"):
        asked.chunk(part)
        await asked.writer.drain()
    asked.last_chunk()


ROUTES = [
    ("GET", "/v1/models", "/v1/models"),
    ("POST", "/v1/chat/completions", "/v1/chat/completions"),
    ("POST", "/v1/completions", "/v1/completions"),
    ("POST", "/v1/embeddings", "/v1/embeddings"),
    ("POST", "/v1/responses", "/v1/responses"),
    ("GET", "/ollama/", "/"),
    ("HEAD", "/ollama/", "/"),
    ("GET", "/ollama/api/tags", "/api/tags"),
    ("GET", "/ollama/api/version", "/api/version"),
    ("GET", "/ollama/api/ps", "/api/ps"),
    ("POST", "/ollama/api/chat", "/api/chat"),
    ("POST", "/ollama/api/generate", "/api/generate"),
    ("POST", "/ollama/api/embed", "/api/embed"),
    ("POST", "/ollama/api/embeddings", "/api/embeddings"),
    ("POST", "/ollama/api/show", "/api/show"),
    ("POST", "/ollama/v1/chat/completions", "/v1/chat/completions"),
    ("POST", "/anthropic/v1/messages", "/v1/messages"),
]


async def test_every_public_route_reaches_its_engine_path(tmp_path: Path) -> None:
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url) as at:
        for method, target, path in ROUTES:
            engine.asked.clear()
            answer = await at.answer(method, target + "?x=1", CHAT if method == "POST" else None)
            assert answer.status == 200, target
            assert answer.trailers is not None, target
            if method != "GET" or path == "/":  # the others are answered as health questions
                assert [(asked.method, asked.target) for asked in engine.asked] == [(method, path)]


async def test_forbidden_routes_never_reach_an_engine(tmp_path: Path) -> None:
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url) as at:
        for method, target in (
            ("POST", "/ollama/api/create"),
            ("POST", "/ollama/api/push"),
            ("POST", "/ollama/api/blobs/sha256:00"),
            ("POST", "/ollama/api/pull"),
            ("DELETE", "/ollama/api/delete"),
            ("POST", "/ollama/api/copy"),
            ("POST", "/ollama/api/chat/../delete"),
            ("POST", "/ollama/api/%2e%2e/delete"),
            ("POST", "//ollama/api/chat"),
            ("GET", "/v1/chat/completions"),
        ):
            answer = await at.answer(method, target, {"model": "tiny"})
            assert (answer.status, answer.problem) == (403, "route-refused"), target
            assert answer.field(b"content-type") == b"application/problem+json"
            assert b"sha256" not in answer.data
        assert engine.asked == []


async def test_switched_on_routes_reach_the_engine(tmp_path: Path) -> None:
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url, allow=("pull", "delete")) as at:
        assert (await at.answer("POST", "/ollama/api/pull", {"model": "tiny"})).status == 200
        assert (await at.answer("DELETE", "/ollama/api/delete", {"model": "tiny"})).status == 200
        assert (await at.answer("POST", "/ollama/api/copy", {"source": "tiny"})).status == 403
        assert [asked.target for asked in engine.asked] == ["/api/pull", "/api/delete"]


async def test_a_streamed_answer_comes_with_the_right_fields(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer(
            "POST",
            "/v1/chat/completions",
            CHAT,
            ID,
            (b"origin", b"https://evil.example"),
            (b"cookie", b"session=1"),
            (b"authorization", b"Bearer cloud-key"),
            (b"x-api-key", b"cloud-key"),
            (b"accept-encoding", b"gzip"),
            (b"accept", b"text/event-stream"),
        )
        assert bytes(answer.data) == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
        assert answer.field(b"content-type") == b"text/event-stream"
        assert answer.field(b"c2l-exchange-id") == ID[1]
        assert answer.field(b"set-cookie") is None
        assert answer.field(b"server") is None
        [asked] = engine.asked
        assert asked.field("host") == f"127.0.0.1:{engine.port}"
        assert asked.field("accept") == "text/event-stream"
        assert json.loads(asked.body) == CHAT
        for dropped in ("origin", "cookie", "authorization", "x-api-key", "accept-encoding", "c2l-exchange-id"):
            assert asked.field(dropped) is None, dropped


async def test_the_engines_own_key_is_sent(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, f"http://:local-key@127.0.0.1:{engine.port}") as at:
        await at.answer("POST", "/v1/chat/completions", CHAT, (b"authorization", b"Bearer cloud-key"))
        assert engine.asked[0].field("authorization") == "Bearer local-key"


async def test_request_framing_is_kept(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        content = json.dumps(CHAT).encode()
        await at.ask("POST", "/v1/chat/completions", content=content).finished()
        ask = at.ask("POST", "/v1/chat/completions", end=False)
        assert ask.stream is not None
        for byte in content:
            ask.stream.send_data(bytes([byte]))
        ask.stream.end()
        await ask.finished()
        by_length, chunked = engine.asked
        assert by_length.field("content-length") == str(len(content))
        assert chunked.field("transfer-encoding") == "chunked"
        assert by_length.body == chunked.body == content


async def test_content_that_is_longer_or_shorter_than_announced_never_becomes_another_request(tmp_path: Path) -> None:
    smuggled = b"POST /api/delete HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    for kind in ("openai", "ollama"):
        async with scripted_engine(kind=kind) as engine, home(tmp_path, engine.url) as at:
            length = (b"content-length", b"2")
            longer = await at.ask("POST", "/v1/chat/completions", None, length, content=b"{}" + smuggled).finished()
            assert longer.problem == "bad-request" or longer.reset is not None
            shorter = await at.ask("POST", "/v1/chat/completions", None, length, content=b"{").finished()
            assert shorter.problem == "bad-request" or shorter.reset is not None
            await asyncio.sleep(0.05)
            assert all(asked.target == "/v1/chat/completions" for asked in engine.asked)


async def test_fields_with_line_breaks_are_refused(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT, (b"content-length", b"1, 2"))
        assert answer.problem == "bad-request"
        assert engine.asked == []


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async def redirect(asked: Asked) -> None:
        asked.head(307, "location: http://127.0.0.1:1/api/delete", "content-length: 0")

    async with scripted_engine(answer=redirect) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert (answer.status, answer.problem) == (502, "engine-error")
        assert answer.field(b"location") is None
        assert len(engine.asked) == 1


async def test_the_engines_own_errors_are_passed_on(tmp_path: Path) -> None:
    async def refuse(asked: Asked) -> None:
        asked.json({"error": "model requires more memory"}, 500, "retry-after: 3")

    async with scripted_engine(answer=refuse) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert (answer.status, answer.json) == (500, {"error": "model requires more memory"})
        assert answer.field(b"retry-after") == b"3"


@pytest.mark.parametrize("garbage", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
async def test_no_proper_answer_is_an_engine_error(tmp_path: Path, garbage: bytes) -> None:
    async def break_off(asked: Asked) -> None:
        asked.send(garbage)
        await asked.writer.drain()
        asked.writer.close()

    async with scripted_engine(answer=break_off) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert (answer.status, answer.problem) == (502, "engine-error")


async def test_an_engine_that_dies_midway_resets_the_stream(tmp_path: Path) -> None:
    async def die(asked: Asked) -> None:
        asked.head(200, chunked=True)
        asked.chunk(b"half")
        await asked.writer.drain()
        asked.writer.close()

    async with scripted_engine(answer=die) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert bytes(answer.data) == b"half"
        assert answer.reset is not None
        assert answer.reset[0] is ResetReason.ENGINE_ERROR


async def test_an_engine_that_is_down_is_told_and_comes_back(tmp_path: Path) -> None:
    async with scripted_engine() as engine:
        port = engine.port
    async with home(tmp_path, f"http://127.0.0.1:{port}") as at:
        [down] = at.bridge.catalog.engines
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert (answer.status, answer.problem) == (502, "engine-unreachable")
        assert down.state is EngineState.DOWN
        async with scripted_engine(port=port):
            assert (await at.answer("POST", "/v1/chat/completions", CHAT)).status == 200
            assert str(down.state.value) == "up"
        await at.answer("POST", "/v1/chat/completions", CHAT)
        await until(lambda: down.state is EngineState.DOWN)


async def test_informational_responses_are_passed_on(tmp_path: Path) -> None:
    async def hint(asked: Asked) -> None:
        asked.head(100)
        asked.head(103, "link: </x>; rel=preload")
        asked.json({})

    async with scripted_engine(answer=hint) as engine, home(tmp_path, engine.url) as at:
        answer = await at.answer("POST", "/v1/chat/completions", CHAT)
        assert [head.status for head in answer.heads] == [103, 200]


async def test_a_slow_reader_stops_the_engine_and_loses_nothing(tmp_path: Path) -> None:
    sent = 0

    async def flood(asked: Asked) -> None:
        nonlocal sent
        asked.head(200, chunked=True)
        for number in range(2000):
            asked.chunk(number.to_bytes(4, "big") * 4096)
            await asked.writer.drain()
            sent += 16384
        asked.last_chunk()

    async with scripted_engine(answer=flood) as engine, home(tmp_path, engine.url) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, granting=False)
        await until(lambda: len(ask.data) >= 256 * 1024)
        await asyncio.sleep(0.2)
        stopped = sent
        [record] = at.bridge.journal.running()
        assert len(ask.data) == 256 * 1024, "expected one window"
        assert record.size < 1024 * 1024, "expected the bridge to stop reading"
        assert stopped < 2000 * 16384, "expected the engine to be stopped"
        ask.grant()
        await ask.finished()
        assert bytes(ask.data) == b"".join(number.to_bytes(4, "big") * 4096 for number in range(2000))


async def test_a_large_request_is_streamed_under_credit(tmp_path: Path) -> None:
    content = json.dumps({**CHAT, "image": "x" * 3_000_000}).encode()
    for kind in ("openai", "ollama"):
        async with scripted_engine(kind=kind) as engine, home(tmp_path, engine.url) as at:
            length = (b"content-length", str(len(content)).encode())
            ask = at.ask("POST", "/v1/chat/completions", None, length, end=False)
            stream, offset = ask.stream, 0
            assert stream is not None
            async with asyncio.timeout(10):
                while offset < len(content):
                    size = min(stream.window, len(content) - offset)
                    stream.send_data(content[offset : offset + size])
                    offset += size
                    await asyncio.sleep(0.001)
            stream.end()
            assert (await ask.finished()).status == 200
            assert engine.asked[0].body == content


async def test_compressed_or_unreadable_content_is_refused_where_the_model_must_be_read(tmp_path: Path) -> None:
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url) as at:
        encoded = await at.answer("POST", "/ollama/api/chat", CHAT, (b"content-encoding", b"gzip"))
        assert encoded.problem == "bad-request"
        broken = await at.ask("POST", "/ollama/api/chat", content=b'{"model":').finished()
        assert broken.problem == "bad-request"
        assert engine.asked == []


async def test_cloud_models_are_refused(tmp_path: Path) -> None:
    async with (
        scripted_engine(kind="ollama", models=["tiny", "big:cloud"]) as engine,
        home(tmp_path, engine.url) as at,
    ):
        for target in ("/ollama/api/chat", "/v1/chat/completions", "/ollama/api/show"):
            refused = await at.ask("POST", target, content=b'{"model": "tiny", "Model": "big:cloud"}').finished()
            assert refused.problem == "route-refused"
            assert b"big" not in refused.data
        assert engine.asked == []


async def test_without_engines_the_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudtolocalllm.bridge.service.WELL_KNOWN_PORTS", {})
    async with home(tmp_path) as at:
        answer = await at.answer("GET", "/v1/models")
        assert (answer.status, answer.problem) == (502, "engine-unreachable")
