"""How long answers live: cancelled, kept while a model loads, kept in the journal when the proxy is lost."""

import asyncio
from pathlib import Path

import pytest
from tests.support.bridge_parts import Home, home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.contracts.control import EngineState
from cloudtolocalllm.tunnel import Limits, ResetReason

CHAT = {"model": "tiny", "messages": [], "stream": True}
NAME = "exchange-0123456789"
ID = (b"c2l-exchange-id", NAME.encode())
TARGET = f"/c2l/exchanges/{NAME}"
SHORT = Limits(resume_window=0.2)


class Steps:
    """An engine's answer that goes on when the test says so."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __call__(self, asked: Asked) -> None:
        first = True
        while True:
            step, gone = asyncio.ensure_future(self.steps.get()), asyncio.ensure_future(asked.gone.wait())
            await asyncio.wait((step, gone), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not step.done():
                step.cancel()
                raise ConnectionResetError
            if first:
                asked.head(200, "content-type: text/event-stream", chunked=True)
                first = False
            data = step.result()
            if data is None:
                asked.last_chunk()
                return
            asked.chunk(data)
            await asked.writer.drain()

    def send(self, *steps: bytes | None) -> None:
        for step in steps:
            self.steps.put_nowait(step)


async def lose_proxy(at: Home) -> None:
    """The proxy dies: its end of the session is gone, and the bridge's finds it gone when it dials again."""
    lost = at.tunnel
    [record] = at.bridge.journal.running()
    lost.end("the proxy died")
    await until(lambda: record.readers == 0)
    await until(lambda: any(each.attached and each is not lost for each in at.server.tunnels()))


# --- cancel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "ollama"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancel_closes_the_engines_connection_at_once(tmp_path: Path, kind: str, begun: bool) -> None:
    steps = Steps()
    async with scripted_engine(kind=kind, loaded=["tiny"], answer=steps) as engine, home(tmp_path, engine.url) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, ID)
        await until(lambda: len(engine.asked) == 1)
        if begun:
            steps.send(b"one")
            await until(lambda: bytes(ask.data) == b"one")
        ask.cancel()
        async with asyncio.timeout(0.2):
            await engine.asked[0].gone.wait()
        assert at.bridge.journal.running() == []


async def test_a_cancel_before_the_request_is_complete_asks_no_engine(tmp_path: Path) -> None:
    async with scripted_engine(kind="ollama") as engine, home(tmp_path, engine.url) as at:
        ask = at.ask("POST", "/ollama/api/chat", content=b'{"model"', end=False)
        await until(lambda: len(at.bridge.journal.running()) == 1)
        ask.cancel()
        await until(lambda: at.bridge.journal.running() == [])
        assert engine.asked == []


async def test_delete_stops_an_exchange(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(answer=steps) as engine, home(tmp_path, engine.url) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, ID)
        steps.send(b"one")
        await until(lambda: bytes(ask.data) == b"one")
        stopped = await at.answer("DELETE", TARGET)
        assert (stopped.status, bytes(stopped.data)) == (204, b"")
        await ask.finished()
        assert ask.reset is not None
        async with asyncio.timeout(0.2):
            await engine.asked[0].gone.wait()
        assert (await at.answer("DELETE", TARGET)).status == 204, "expected that stopping twice is fine"
        assert (await at.answer("DELETE", TARGET + "-other")).problem == "not-found"


# --- a model that is being loaded -----------------------------------------------------------------------------


async def test_a_disconnect_while_the_model_loads_waits_for_the_first_byte(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(kind="ollama", answer=steps) as engine, home(tmp_path, engine.url) as at:
        [known] = at.bridge.catalog.engines
        ask = at.ask("POST", "/ollama/api/chat", CHAT, ID)
        await until(lambda: known.state is EngineState.LOADING)
        ask.cancel()
        await asyncio.sleep(0.2)
        assert not engine.asked[0].gone.is_set(), "expected the load to go on"
        assert known.state is EngineState.LOADING
        steps.send(b"one")
        async with asyncio.timeout(0.5):
            await engine.asked[0].gone.wait()
        assert [status.state for status in at.bridge.catalog.statuses] == [EngineState.UP]


async def test_an_early_disconnect_from_a_model_that_is_not_loaded_does_not_abort_the_load(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(kind="ollama", answer=steps) as engine, home(tmp_path, engine.url) as at:
        ask = at.ask("POST", "/ollama/api/chat", CHAT, ID)
        await until(lambda: len(engine.asked) == 1)
        ask.cancel()
        await asyncio.sleep(0.2)
        assert not engine.asked[0].gone.is_set()


async def test_the_grace_for_loading_ends(tmp_path: Path) -> None:
    steps = Steps()
    async with (
        scripted_engine(kind="ollama", answer=steps) as engine,
        home(tmp_path, engine.url, load_grace=0.3) as at,
    ):
        ask = at.ask("POST", "/ollama/api/chat", CHAT, ID)
        await until(lambda: len(engine.asked) == 1)
        ask.cancel()
        await asyncio.sleep(0.1)
        assert not engine.asked[0].gone.is_set()
        async with asyncio.timeout(1):
            await engine.asked[0].gone.wait()


async def test_loading_is_seen_even_when_the_engine_unloaded_the_model_unnoticed(tmp_path: Path) -> None:
    steps = Steps()
    async with (
        scripted_engine(kind="ollama", loaded=["tiny"], answer=steps) as engine,
        home(tmp_path, engine.url) as at,
    ):
        [known] = at.bridge.catalog.engines
        engine.loaded = []
        ask = at.ask("POST", "/ollama/api/chat", CHAT)
        await until(lambda: known.state is EngineState.LOADING)
        steps.send(b"one", None)
        await ask.finished()
        assert known.state is EngineState.UP
        assert known.loaded == {"tiny"}


# --- the journal ----------------------------------------------------------------------------------------------


async def test_an_answer_goes_on_without_its_proxy_and_is_replayed_and_followed(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(answer=steps) as engine, home(tmp_path, engine.url, limits=SHORT) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, ID)
        steps.send(b"one ", b"two ")
        await until(lambda: bytes(ask.data) == b"one two ")
        await lose_proxy(at)
        steps.send(b"three ")
        whole, rest = at.ask("GET", TARGET), at.ask("GET", TARGET + "?offset=4")
        await until(lambda: bytes(whole.data) == b"one two three " and bytes(rest.data) == b"two three ")
        rest_gone = at.ask("GET", TARGET)
        await rest_gone.headed()
        rest_gone.cancel()
        await asyncio.sleep(0.05)
        assert not engine.asked[0].gone.is_set(), "expected that a reader who leaves stops nothing"
        steps.send(b"four", None)
        for reader, text in ((whole, b"one two three four"), (rest, b"two three four")):
            await reader.finished()
            assert (reader.status, bytes(reader.data)) == (200, text)
            assert reader.field(b"content-type") == b"text/event-stream"
            assert reader.field(b"c2l-exchange-id") == ID[1]
            assert reader.trailers is not None
        assert bytes((await at.answer("GET", TARGET + "?offset=14")).data) == b"four", "expected it to be kept"
        assert len(engine.asked) == 1


async def test_an_answer_without_its_proxy_can_be_stopped(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(answer=steps) as engine, home(tmp_path, engine.url, limits=SHORT) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, ID)
        steps.send(b"one")
        await until(lambda: bytes(ask.data) == b"one")
        await lose_proxy(at)
        assert (await at.answer("DELETE", TARGET)).status == 204
        async with asyncio.timeout(0.2):
            await engine.asked[0].gone.wait()
        cut = await at.answer("GET", TARGET)
        assert bytes(cut.data) == b"one"
        assert cut.reset is not None, "expected that a cut answer does not look complete"
        assert cut.reset[0] is ResetReason.ENGINE_ERROR


async def test_problems_are_replayed_as_well(tmp_path: Path) -> None:
    async with home(tmp_path, "http://127.0.0.1:9") as at:
        first = await at.answer("POST", "/v1/chat/completions", CHAT, ID)
        again = await at.answer("GET", TARGET)
        assert (first.status, bytes(first.data)) == (again.status, bytes(again.data))
        assert first.problem == "engine-unreachable"


async def test_what_is_not_kept_is_not_found(tmp_path: Path) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        assert (await at.answer("GET", TARGET)).problem == "not-found"
        await at.answer("GET", "/v1/models", None, ID)
        await at.answer("POST", "/v1/embeddings", CHAT, ID)
        assert (await at.answer("GET", TARGET)).problem == "not-found", "expected lists not to be kept"
        await at.answer("POST", "/v1/chat/completions", CHAT, ID)
        assert (await at.answer("GET", TARGET)).status == 200
        assert (await at.answer("GET", TARGET + "?offset=100000")).problem == "bad-request"
        head = await at.answer("HEAD", TARGET)
        assert (head.status, bytes(head.data), head.reset) == (200, b"", None)


async def test_an_answer_larger_than_the_journal_arrives_whole_but_is_not_kept(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(answer=steps) as engine, home(tmp_path, engine.url, journal_bytes=64 * 1024) as at:
        ask = at.ask("POST", "/v1/chat/completions", CHAT, ID)
        parts = [bytes([number]) * 10_000 for number in range(40)]
        steps.send(*parts)
        await until(lambda: len(ask.data) == 400_000)
        assert (await at.answer("GET", TARGET)).problem == "not-found"
        steps.send(None)
        await ask.finished()
        assert bytes(ask.data) == b"".join(parts)
        assert at.bridge.journal.held == 0


async def test_an_id_that_runs_cannot_be_used_again(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(answer=steps) as engine, home(tmp_path, engine.url) as at:
        at.ask("POST", "/v1/chat/completions", CHAT, ID)
        await until(lambda: len(engine.asked) == 1)
        assert (await at.answer("POST", "/v1/chat/completions", CHAT, ID)).problem == "bad-request"
        assert len(engine.asked) == 1


# --- connections --------------------------------------------------------------------------------------------------


async def test_a_kept_alive_connection_that_the_engine_closes_as_it_is_used_costs_nothing(tmp_path: Path) -> None:
    async def close_second(asked: Asked) -> None:
        if len(engine.asked) == 2:
            asked.writer.close()
        else:
            asked.json({"ok": len(engine.asked)})

    for kind in ("openai", "ollama"):
        async with (
            scripted_engine(kind=kind, loaded=["tiny"], answer=close_second) as engine,
            home(tmp_path, engine.url) as at,
        ):
            assert (await at.answer("POST", "/v1/chat/completions", CHAT)).json == {"ok": 1}
            assert (await at.answer("POST", "/v1/chat/completions", CHAT)).json == {"ok": 3}
            assert engine.asked[1].body == engine.asked[2].body


async def test_the_end_of_the_bridge_stops_the_engine(tmp_path: Path) -> None:
    steps = Steps()
    async with scripted_engine(kind="ollama", answer=steps) as engine:
        async with home(tmp_path, engine.url) as at:
            ask = at.ask("POST", "/ollama/api/chat", CHAT, ID)
            await until(lambda: len(engine.asked) == 1)
        await ask.finished()
        async with asyncio.timeout(1):
            await engine.asked[0].gone.wait()
