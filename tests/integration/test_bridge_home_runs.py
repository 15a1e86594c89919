"""Runs: owned by the bridge, watched by anybody at any offset, stopped only on purpose."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.support.home_parts import HomeClient, begin, event, finish, home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine

from cloudtolocalllm.bridge.runs import desk as runs_desk
from cloudtolocalllm.bridge.runs import live as runs_live
from cloudtolocalllm.bridge.runs import writer as runs_writer


@pytest.fixture
async def engine() -> AsyncGenerator[ScriptedEngine]:
    async with scripted_engine() as running:
        yield running


@pytest.fixture
async def client(engine: ScriptedEngine, tmp_path: Path) -> AsyncGenerator[HomeClient]:
    async with home(tmp_path, engine.url) as running:
        yield running


def answers(*events: bytes, hold: asyncio.Event | None = None) -> Any:
    async def answer(asked: Asked) -> None:
        begin(asked)
        for one in events:
            asked.chunk(one)
        if hold is not None:
            await hold.wait()
        finish(asked)

    return answer


async def test_an_answer_is_stored_with_all_that_came(client: HomeClient, engine: ScriptedEngine) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a":'}}
    engine.answer = answers(
        event(reasoning_content="hm "), event("Hello "), event("wörld \U0001f44b"),
        event(tool_calls=[call]), event(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
    )  # fmt: skip
    talk, note = await client.asked("What?")
    run = await client.start(talk, note, options={"temperature": 0.5, "stop": ["x"]})
    assert run["state"] == "queued"
    text, ended = await client.watched(run["id"])
    assert (ended["state"], ended["prompt_tokens"], ended["answer_tokens"]) == ("done", 3, 4)
    whole = await client.get("GET", f"/conversations/{talk}")
    message = whole["messages"][-1]
    assert (message["id"], message["parent"], message["run"]) == (run["message"], note, run["id"])
    assert (message["content"], message["thinking"]) == ("Hello wörld \U0001f44b", "hm ")
    assert [json.loads(call) for call in message["tool_calls"]] == [{"id": "c1", "name": "f", "arguments": '{"a":1}'}]
    assert text == "hm Hello wörld \U0001f44b" + message["tool_calls"][0] + "\n"
    assert whole["conversation"]["leaf"] == run["message"]
    sent = json.loads(engine.asked[0].body)
    assert sent["messages"] == [{"role": "user", "content": "What?"}]
    assert (sent["model"], sent["stream"], sent["temperature"], sent["stop"]) == ("tiny", True, 0.5, ["x"])


async def test_an_answer_goes_on_when_nobody_watches(client: HomeClient, engine: ScriptedEngine) -> None:
    hold = asyncio.Event()
    engine.answer = answers(event("one "), event("two"), hold=hold)
    run = await client.start(*await client.asked())
    watching = await client.events("GET", f"/runs/{run['id']}/events")
    await anext(watching)
    await watching.aclose()
    assert not engine.asked[0].gone.is_set()
    hold.set()
    assert (await client.watched(run["id"]))[0] == "one two"


async def test_a_run_is_started_once(client: HomeClient, engine: ScriptedEngine) -> None:
    engine.answer = answers(event("x"))
    talk, note = await client.asked()
    both = await asyncio.gather(*(client.start(talk, note, id="r" * 16) for _ in range(3)))
    assert {run["id"] for run in both} == {"r" * 16}
    await client.watched("r" * 16)
    again = await client.start(talk, note, id="r" * 16)
    assert again["state"] == "done"
    assert len(engine.asked) == 1
    other, question = await client.asked()
    body = {"model": "tiny", "parent": question, "id": "r" * 16}
    assert await client.problem("POST", f"/conversations/{other}/runs", body) == "conflict"


async def test_a_stop_reaches_the_engine_before_the_disk_and_keeps_the_text(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answer = answers(event("as far as "), event("this"), hold=asyncio.Event())
    talk, note = await client.asked()
    run = await client.start(talk, note)
    watching = asyncio.create_task(client.watched(run["id"]))
    await until(lambda: client.home.runs._live[run["id"]].size == 14)
    free = asyncio.Event()
    write = client.home.store.write

    async def slow(*arguments: Any, **named: Any) -> Any:
        await free.wait()
        return await write(*arguments, **named)

    monkeypatch.setattr(client.home.store, "write", slow)
    stopped = asyncio.create_task(client.get("POST", f"/runs/{run['id']}/stop"))
    async with asyncio.timeout(runs_desk.STOP_TIME):
        await engine.asked[0].gone.wait()
    assert not stopped.done()
    free.set()
    assert (await stopped)["state"] == "stopped"
    assert (await watching)[0] == "as far as this"
    assert (await client.get("GET", f"/conversations/{talk}"))["messages"][-1]["content"] == "as far as this"
    assert (await client.get("POST", f"/runs/{run['id']}/stop"))["state"] == "stopped"
    await client.get("DELETE", f"/conversations/{talk}", status=204)
    assert await client.problem("GET", f"/runs/{run['id']}") == "not-found"


async def test_what_is_written_cannot_be_deleted_or_exported(client: HomeClient, engine: ScriptedEngine) -> None:
    engine.answer = answers(event("x"), hold=asyncio.Event())
    talk, note = await client.asked()
    run = await client.start(talk, note)
    assert await client.problem("DELETE", f"/conversations/{talk}") == "conflict"
    assert await client.problem("DELETE", f"/conversations/{talk}/messages/{note}") == "conflict"
    assert await client.problem("GET", f"/conversations/{talk}/export") == "conflict"
    assert [one["id"] for one in (await client.get("GET", "/runs"))["runs"]] == [run["id"]]


FAILURES = {
    "cut": ([event("half")], "engine-error", "half"),
    "error": ([event("half"), b'data: {"error":{"message":"out of memory"}}\n\n'], "engine-error", "half"),
    "junk": ([b"data: {nonsense\n\n"], "engine-error", ""),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_short_answer_is_never_silently_short(client: HomeClient, engine: ScriptedEngine, name: str) -> None:
    events, reason, text = FAILURES[name]

    async def answer(asked: Asked) -> None:
        begin(asked)
        for one in events:
            asked.chunk(one)
        asked.last_chunk()

    engine.answer = answer
    run = await client.start(*await client.asked())
    got, ended = await client.watched(run["id"])
    assert (got, ended["state"], ended["reason"]) == (text, "failed", reason)
    assert ended["detail"]


async def test_a_broken_connection_fails_the_run(client: HomeClient, engine: ScriptedEngine) -> None:
    async def answer(asked: Asked) -> None:
        begin(asked)
        asked.chunk(event("half"))
        await asked.writer.drain()
        asked.writer.close()

    engine.answer = answer
    run = await client.start(*await client.asked())
    got, ended = await client.watched(run["id"])
    assert (got, ended["state"], ended["reason"]) == ("half", "failed", "engine-error")


async def test_an_engines_refusal_is_told(client: HomeClient, engine: ScriptedEngine) -> None:
    async def answer(asked: Asked) -> None:
        asked.json({"error": {"message": "model is too big"}}, 500)

    engine.answer = answer
    run = await client.start(*await client.asked())
    _, ended = await client.watched(run["id"])
    assert (ended["state"], ended["reason"], ended["detail"]) == ("failed", "engine-error", "model is too big")


async def test_an_engine_that_is_down_is_told(tmp_path: Path) -> None:
    async with home(tmp_path, "http://127.0.0.1:9") as client:
        run = await client.start(*await client.asked())
        _, ended = await client.watched(run["id"])
        assert (ended["state"], ended["reason"]) == ("failed", "engine-unreachable")


async def test_loading_is_a_state(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def answer(asked: Asked) -> None:
        await hold.wait()
        begin(asked)
        asked.chunk(event("x"))
        finish(asked)

    async with scripted_engine(kind="ollama", answer=answer) as engine, home(tmp_path, engine.url) as client:
        run = await client.start(*await client.asked())
        states = []
        async with asyncio.timeout(10):
            async for one in await client.events("GET", f"/runs/{run['id']}/events"):
                states.append(one["state"])
                if one["state"] == "loading":
                    hold.set()
        assert [state for state, before in zip(states, ["", *states], strict=False) if state != before] == [
            "queued", "loading", "streaming", "done",
        ]  # fmt: skip


async def test_surrogate_pairs_cut_between_events_come_whole(client: HomeClient, engine: ScriptedEngine) -> None:
    raw = [
        b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % part
        for part in (b"a\\ud83d", b"\\ude00b\\ud83d", b"c")
    ]
    engine.answer = answers(*raw)
    run = await client.start(*await client.asked())
    assert (await client.watched(run["id"]))[0] == "a\U0001f600b\ufffdc"


async def test_watchers_at_random_offsets_all_get_the_stored_text(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_live, "KEPT", 500)
    rng = random.Random(5)
    steps = asyncio.Semaphore(0)
    pieces = ["".join(rng.choice("aé€\U0001f600 ") for _ in range(rng.randrange(1, 40))) for _ in range(300)]

    async def answer(asked: Asked) -> None:
        begin(asked)
        for number, piece in enumerate(pieces):
            await steps.acquire()
            asked.chunk(event(**{"reasoning_content" if number % 90 < 20 else "content": piece}))
            await asked.writer.drain()
        finish(asked)

    engine.answer = answer
    whole = "".join(pieces)
    talk, note = await client.asked()
    run = await client.start(talk, note)
    live = client.home.runs._live[run["id"]]
    watchers: list[tuple[int, asyncio.Task[Any]]] = []
    reached = 0
    for number in range(len(pieces)):
        steps.release()
        reached += len(pieces[number])
        size = len(whole[:reached].encode())
        await until(lambda size=size: live.size >= size)  # type: ignore[misc] # bound now
        if number % 15 == 0:
            start = rng.randrange(reached + 1)
            offset = len(whole[:start].encode())
            watchers.append((start, asyncio.create_task(client.watched(run["id"], offset))))
            lost = await client.events("GET", f"/runs/{run['id']}/events", offset=offset)
            await anext(lost)
            await lost.aclose()
    for start, watcher in watchers:
        text, ended = await watcher
        assert text == whole[start:]
        assert ended["state"] == "done"
    for start in rng.sample(range(len(whole)), 20):
        assert (await client.watched(run["id"], len(whole[:start].encode())))[0] == whole[start:]
    message = (await client.get("GET", f"/conversations/{talk}"))["messages"][-1]
    assert message["content"] == "".join(p for n, p in enumerate(pieces) if n % 90 >= 20)
    assert message["thinking"] == "".join(p for n, p in enumerate(pieces) if n % 90 < 20)


async def test_offsets_that_are_none_are_refused(client: HomeClient, engine: ScriptedEngine) -> None:
    engine.answer = answers(event("é"))
    run = await client.start(*await client.asked())
    await client.watched(run["id"])
    for offset in (1, 3):
        assert await client.problem("GET", f"/runs/{run['id']}/events", offset=offset) == "conflict"
    assert await client.problem("GET", f"/runs/{run['id']}/events", offset="x") == "bad-request"
    assert (await client.watched(run["id"], 2))[0] == ""


async def test_a_slow_watcher_holds_nobody_up_and_costs_no_memory(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_live, "KEPT", 10_000)
    text = "0123456789" * 2000

    async def answer(asked: Asked) -> None:
        begin(asked)
        for _ in range(100):
            asked.chunk(event(text))
            await asked.writer.drain()
        finish(asked)

    engine.answer = answer
    run = await client.start(*await client.asked())
    slow = await client.events("GET", f"/runs/{run['id']}/events")
    await anext(slow)
    live = client.home.runs._live[run["id"]]
    got, ended = await client.watched(run["id"])
    assert (got, ended["size"]) == (text * 100, 2_000_000)
    held = sum(len(piece.text) for piece in live._pieces)
    assert held < 100_000, "what is stored is still held"
    rest = "".join([one["text"]["text"] async for one in slow if one["text"] is not None])
    assert rest == text * 100


async def test_a_disk_that_is_slow_holds_the_engine_up(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_writer, "MAX_UNSTORED", 50_000)
    text = "0123456789" * 1000
    sent = 0

    async def answer(asked: Asked) -> None:
        nonlocal sent
        begin(asked)
        for _ in range(300):
            asked.chunk(event(text))
            await asked.writer.drain()
            sent += len(text)
        finish(asked)

    engine.answer = answer
    talk, note = await client.asked()
    free = asyncio.Event()
    write = client.home.store.write

    async def slow(*arguments: Any, **named: Any) -> Any:
        await free.wait()
        return await write(*arguments, **named)

    run = await client.start(talk, note)
    monkeypatch.setattr(client.home.store, "write", slow)
    live = client.home.runs._live[run["id"]]
    await until(lambda: live.unstored >= 50_000)
    before = -1
    while before != sent:  # the sockets fill up
        before = sent
        await asyncio.sleep(0.1)
    assert live.unstored < 400_000
    free.set()
    assert (await client.watched(run["id"]))[1]["size"] == 3_000_000


async def test_a_store_that_is_full_fails_the_run_and_says_so(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_desk, "TRIES", 2)
    engine.answer = answers(event("x" * 200_000), hold=asyncio.Event())
    talk, note = await client.asked()

    def fill(tx: Any) -> None:
        tx.one(f"PRAGMA max_page_count = {tx.one('PRAGMA page_count')[0] + 10}")

    await client.home.store.write(fill)
    run = await client.start(talk, note)
    got, ended = await client.watched(run["id"])
    assert (ended["state"], ended["reason"]) == ("failed", "home-full")
    assert got == "x" * 200_000  # who watched has it all
    async with asyncio.timeout(10):
        await engine.asked[0].gone.wait()
    await client.home.store.write(lambda tx: tx.one("PRAGMA max_page_count = 100000"))
    await until(lambda: not client.home.runs._unfinished)
    assert (await client.get("GET", f"/runs/{run['id']}"))["state"] == "failed"
    assert await client.home.store.read(lambda tx: tx.one("SELECT state FROM runs")) == ("failed",)


async def test_runs_at_once_are_bounded(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_desk, "MAX_LIVE", 2)
    engine.answer = answers(event("x"), hold=asyncio.Event())
    talk, note = await client.asked()
    for _ in range(2):
        await client.start(talk, note)
    body = {"model": "tiny", "parent": note}
    assert await client.problem("POST", f"/conversations/{talk}/runs", body) == "overloaded"
