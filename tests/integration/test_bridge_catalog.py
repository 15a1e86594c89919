"""Several engines at once, finding them, and the real ones."""

import asyncio
from pathlib import Path

import pytest
from tests.support import engines as real
from tests.support.bridge_parts import home
from tests.support.link_parts import until
from tests.support.scripted_engine import scripted_engine

from cloudtolocalllm.bridge.engines.probe import probe
from cloudtolocalllm.contracts.control import EngineKind, EngineState
from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.http1 import HttpServer, Request, RequestHandler, Responder


def chat(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def test_lists_of_several_engines_are_joined_and_requests_go_where_the_model_is(tmp_path: Path) -> None:
    async with (
        scripted_engine(kind="ollama", models=["llama3:latest", "both"]) as ollama,
        scripted_engine(models=["Tiny", "both"]) as llama,
        home(tmp_path, ollama.url, llama.url) as at,
    ):
        listed = await at.answer("GET", "/v1/models")
        assert [model["id"] for model in listed.json["data"]] == ["llama3:latest", "both", "Tiny"]
        assert int(listed.field(b"content-length") or 0) == len(listed.data)
        tags = await at.answer("GET", "/ollama/api/tags")
        assert [model["name"] for model in tags.json["models"]] == ["llama3:latest", "both"]
        head = await at.answer("HEAD", "/v1/models")
        assert (head.status, bytes(head.data)) == (200, b"")

        for model, engine in (("llama3", ollama), ("Tiny", llama), ("both", ollama)):
            before = len(engine.asked)
            assert (await at.answer("POST", "/v1/chat/completions", chat(model))).status == 200
            assert len(engine.asked) == before + 1, model
        missing = await at.answer("POST", "/v1/chat/completions", chat("none"))
        assert (missing.status, missing.problem) == (404, "model-not-found")
        assert (await at.answer("POST", "/ollama/api/chat", chat("llama3"))).status == 200


async def test_a_model_that_is_new_is_found(tmp_path: Path) -> None:
    async with (
        scripted_engine(models=["a"]) as first,
        scripted_engine(models=["b"]) as second,
        home(tmp_path, first.url, second.url) as at,
    ):
        second.models.append("new")
        assert (await at.answer("POST", "/v1/chat/completions", chat("new"))).status == 200
        assert len(second.asked) == 1


async def test_another_engine_with_the_model_takes_over_before_the_first_byte(tmp_path: Path) -> None:
    async with scripted_engine(models=["both"]) as second:
        async with scripted_engine(models=["both"]) as first:
            port = first.port
            async with home(tmp_path, f"http://127.0.0.1:{port}", second.url) as at:
                await at.answer("POST", "/v1/chat/completions", chat("both"))
                assert (len(first.asked), len(second.asked)) == (1, 0)
        async with home(tmp_path, f"http://127.0.0.1:{port}", second.url) as at:
            assert (await at.answer("POST", "/v1/chat/completions", chat("both"))).status == 200
            listed = await at.answer("GET", "/v1/models")
            assert [model["id"] for model in listed.json["data"]] == ["both"]
            states = [status.state for status in at.bridge.catalog.statuses]
            assert states == [EngineState.DOWN, EngineState.UP]


async def test_ollamas_own_routes_need_an_ollama(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        assert (await at.answer("POST", "/ollama/api/chat", chat("tiny"))).problem == "not-found"


async def test_a_llama_server_that_loads_its_model_is_loading(tmp_path: Path) -> None:
    async with scripted_engine(health=503) as engine, home(tmp_path, engine.url) as at:
        [known] = at.bridge.catalog.engines
        assert known.state is EngineState.LOADING
        engine.health = 200
        at.bridge._health.suspect(known)
        await until(lambda: known.state is not EngineState.LOADING)
        assert known.up


async def test_an_old_ollama_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted_engine(kind="ollama", version="0.6.2") as engine, home(tmp_path, engine.url):
        [warning] = [record for record in caplog.records if "known holes" in record.getMessage()]
        assert "CVE-2026-7482" in vars(warning)["holes"]


class _Nothing:
    def on_body(self, data: bytes) -> None:
        pass

    def on_body_end(self, trailers: object) -> None:
        pass

    def on_disconnect(self) -> None:
        pass

    def on_writable(self, writable: bool) -> None:
        pass


def _own_edge(request: Request, responder: Responder) -> RequestHandler:
    content = problem_content(Problem.UNAUTHENTICATED, "Sign in.")
    responder.respond(401, ((b"content-type", CONTENT_TYPE.encode()),), content)
    return _Nothing()


async def test_probing_finds_engines_and_not_our_own_edge(tmp_path: Path) -> None:
    edge = HttpServer(_own_edge)
    port = await edge.listen_tcp("127.0.0.1", 0)
    try:
        async with (
            scripted_engine(kind="ollama") as ollama,
            scripted_engine() as llama,
            scripted_engine(kind="x", health=404) as web,
        ):
            found = await probe([ollama.port, llama.port, web.port, port, 9])
            assert found == {ollama.port: EngineKind.OLLAMA, llama.port: EngineKind.OPENAI}
    finally:
        await edge.close(0)


async def test_engines_on_well_known_ports_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_engine(kind="ollama") as engine:
        monkeypatch.setattr("cloudtolocalllm.bridge.service.WELL_KNOWN_PORTS", {engine.port: "test"})
        async with home(tmp_path) as at:
            [status] = at.bridge.catalog.statuses
            assert (status.kind, status.state, status.id) == (
                EngineKind.OLLAMA,
                EngineState.UP,
                f"ollama-{engine.port}",
            )
            assert (await at.answer("POST", "/ollama/api/chat", chat("tiny"))).status == 200


# --- the real engine, and Ollama's API over it --------------------------------------------------------------------


@pytest.mark.engine
async def test_the_real_engine_streams_and_stops(tmp_path: Path) -> None:
    with real.llama_server() as engine:
        async with home(tmp_path, engine.url) as at:
            question = {**chat("tiny"), "temperature": 0, "max_tokens": 400}
            answer = await at.answer("POST", "/v1/chat/completions", question)
            assert answer.status == 200
            assert answer.field(b"content-type") == b"text/event-stream"
            assert bytes(answer.data).rstrip().endswith(b"data: [DONE]")
            ask = at.ask(
                "POST",
                "/v1/completions",
                {"model": "tiny", "prompt": "a", "stream": True, "n_predict": 100_000, "ignore_eos": True},
            )
            await until(lambda: len(ask.data) > 0)
            ask.cancel()
            idle = await asyncio.to_thread(real.slots_idle, engine.url, within=2.0)
            assert idle is not None
            listed = await at.answer("GET", "/v1/models")
            assert listed.json["data"][0]["id"] == "tiny"


async def test_the_demo_engine_loads_in_spite_of_a_disconnect(tmp_path: Path) -> None:
    with real.demo_engine(load_seconds=1.0, models="demo:latest", tokens_per_second=50) as engine:
        async with home(tmp_path, demo_engine=engine.url) as at:
            [known] = [each for each in at.bridge.catalog.engines if each.kind is EngineKind.DEMO]
            ask = at.ask("POST", "/ollama/api/chat", chat("demo"))
            await until(lambda: known.state is EngineState.LOADING)
            ask.cancel()
            await until(lambda: known.state is EngineState.UP)
            stats = await asyncio.to_thread(real.demo_stats, engine.url)
            assert (stats["loads"], stats["loads_aborted"]) == (1, 0)
            answer = await at.answer("POST", "/ollama/api/chat", chat("demo"))
            assert (answer.status, answer.field(b"content-type")) == (200, b"application/x-ndjson")
