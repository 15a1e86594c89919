"""Runs that went on when the bridge ended go on when it is there again, and nothing of them is lost or twice."""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from tests.support.home_parts import HomeClient, begin, event, finish, home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine

from cloudtolocalllm.bridge.runs import desk as runs_desk
from cloudtolocalllm.bridge.store import runs as store_runs
from cloudtolocalllm.bridge.store.runs import LeftRun

WORDS = [f"wörd {n} " for n in range(12)]
WHOLE = "".join(WORDS)


@pytest.fixture
async def engine() -> AsyncGenerator[ScriptedEngine]:
    async with scripted_engine() as running:
        yield running


class Teller:
    """An engine that says the same for the same seed, up to a word at which it waits."""

    def __init__(self) -> None:
        self.upto = asyncio.Event()
        self.pause = 5
        self.words: Callable[[int], list[str]] = lambda seed: WORDS
        self.asked: list[dict[str, object]] = []

    async def __call__(self, asked: Asked) -> None:
        request = json.loads(asked.body)
        self.asked.append(request)
        begin(asked)
        for number, word in enumerate(self.words(request["seed"])):
            if number == self.pause:
                await self.upto.wait()
            asked.chunk(event(word))
        finish(asked)


async def broken_off(client: HomeClient, teller: Teller) -> str:
    """Start a run and return its id once the part that the engine says is in the store."""
    run = await client.start(*await client.asked())
    size = len("".join(WORDS[: teller.pause]).encode())
    await until(lambda: client.home.runs._live[run["id"]].stored == size)
    return str(run["id"])


async def test_after_a_crash_it_goes_on_where_it_was(engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answer = teller = Teller()
    async with home(tmp_path / "one", engine.url) as client:
        id_ = await broken_off(client, teller)
        # The files as a kill leaves them: nothing of them was closed.
        shutil.copytree(tmp_path / "one", tmp_path / "two")
    teller.upto.set()
    async with home(tmp_path / "two", engine.url) as client:
        text, ended = await client.watched(id_)
        offset = len("".join(WORDS[:3]).encode())
        rest, _ = await client.watched(id_, offset=offset)
    assert (text, ended["state"]) == (WHOLE, "done")
    assert rest == WHOLE.encode()[offset:].decode()
    assert teller.asked[0] == teller.asked[1], "asked again, it is asked the same"


async def test_after_a_stop_of_the_bridge_too(engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answer = teller = Teller()
    async with home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
    async with home(tmp_path, engine.url) as client:
        assert (await client.get("GET", f"/runs/{id_}"))["state"] in ("queued", "streaming")
        teller.upto.set()
        text, ended = await client.watched(id_)
    assert (text, ended["state"]) == (WHOLE, "done")


async def test_an_engine_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    teller = Teller()
    async with scripted_engine(answer=teller) as engine, home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
    teller.upto.set()
    async with home(tmp_path, engine.url) as client:
        await asyncio.sleep(3 * runs_desk.LOOK_INTERVAL)
        assert (await client.get("GET", f"/runs/{id_}"))["state"] in ("queued", "streaming")
        async with scripted_engine(answer=teller, port=engine.port):
            text, ended = await client.watched(id_)
    assert (text, ended["state"]) == (WHOLE, "done")


@pytest.mark.parametrize(
    "words",
    [["wörd 0 ", "else"], ["wörd"], [*WORDS[:4], "wörd 4"]],
    ids=["another text", "a shorter one", "one short by a blank"],
)
async def test_an_engine_that_says_something_else_changes_nothing(
    engine: ScriptedEngine, tmp_path: Path, words: list[str]
) -> None:
    engine.answer = teller = Teller()
    async with home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
    teller.words = lambda seed: words
    async with home(tmp_path, engine.url) as client:
        text, ended = await client.watched(id_)
    assert (text, ended["state"], ended["reason"]) == ("".join(WORDS[:5]), "interrupted", "interrupted")
    assert "did not say the same" in ended["detail"]


async def test_a_stop_holds_while_it_is_taken_up(tmp_path: Path) -> None:
    teller = Teller()
    async with scripted_engine(answer=teller) as engine, home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
    async with home(tmp_path, engine.url) as client:
        stopped = await client.get("POST", f"/runs/{id_}/stop")
        async with scripted_engine(answer=teller, port=engine.port):
            text, ended = await client.watched(id_)
            await asyncio.sleep(3 * runs_desk.LOOK_INTERVAL)
    assert (stopped["state"], ended["state"], text) == ("stopped", "stopped", "".join(WORDS[:5]))
    assert len(teller.asked) == 1


async def test_a_stop_ends_the_waiting_for_an_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller()
    async with scripted_engine(answer=teller) as engine, home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
    async with home(tmp_path, engine.url) as client:
        desk = client.home.runs
        await client.get("POST", f"/runs/{id_}/stop")
        await until(lambda: not desk.active)
        await until(lambda: len(desk._tasks) == 1)  # that which stores
    assert "task failed" not in caplog.messages


async def test_one_that_was_stopped_before_it_is_taken_up_is_not(
    engine: ScriptedEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.answer = teller = Teller()
    async with home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
        run = await client.home.runs.stop(id_)
        client.home.store.left = [LeftRun(run, "m" * 16, "{}")]
        client.home.runs.take_up()
        await until(lambda: len(client.home.runs._tasks) == 1)
        assert (await client.get("GET", f"/runs/{id_}"))["state"] == "stopped"
    assert len(teller.asked) == 1
    assert "task failed" not in caplog.messages


async def test_options_that_are_not_understood_interrupt_it_and_do_not_leave_it_hanging(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A newer program may have written them."""
    engine.answer = teller = Teller()
    async with home(tmp_path, engine.url) as client:
        id_ = await broken_off(client, teller)
        await client.home.store.write(lambda tx: tx.run("UPDATE runs SET options = ?", '{"tomorrows": 1}'))
    async with home(tmp_path, engine.url) as client:
        text, ended = await client.watched(id_)
    assert (text, ended["state"]) == ("".join(WORDS[:5]), "interrupted")
    assert len(teller.asked) == 1


async def test_one_that_is_old_or_was_taken_up_too_often_is_not(
    engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answer = teller = Teller()
    async with home(tmp_path, engine.url) as client:
        often = await broken_off(client, teller)
    for _ in range(store_runs.TAKEN_UP_TIMES):
        async with home(tmp_path, engine.url) as client:
            assert (await client.get("GET", f"/runs/{often}"))["state"] in ("queued", "streaming")
    async with home(tmp_path, engine.url) as client:
        assert (await client.get("GET", f"/runs/{often}"))["state"] == "interrupted"
        old = await broken_off(client, teller)
    monkeypatch.setattr(store_runs.left_over, "__defaults__", (0.0,))
    async with home(tmp_path, engine.url) as client:
        text, ended = await client.watched(old)
    assert (text, ended["state"]) == ("".join(WORDS[:5]), "interrupted")
