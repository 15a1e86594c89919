"""What may be asked of runs, and what may not: in the middle of something else, too many, too much."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.home_parts import HomeClient, begin, event, finish, home
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, ScriptedEngine, scripted_engine

from cloudtolocalllm.bridge.home_api.messages import Reply
from cloudtolocalllm.bridge.runs import desk as runs_desk
from cloudtolocalllm.bridge.runs import stored
from cloudtolocalllm.bridge.runs import writer as runs_writer
from cloudtolocalllm.bridge.store.tx import Tx

T = TypeVar("T")


@pytest.fixture
async def engine() -> AsyncGenerator[ScriptedEngine]:
    async with scripted_engine() as running:
        yield running


@pytest.fixture
async def client(engine: ScriptedEngine, tmp_path: Path) -> AsyncGenerator[HomeClient]:
    async with home(tmp_path, engine.url) as running:
        yield running


class Held:
    """An engine that says a word and waits before the end."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        begin(asked)
        asked.chunk(event("wörd"))
        await self.go_on.wait()
        finish(asked)


async def test_an_ended_run_is_watched_whole_while_it_is_asked_for_once_more(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a device that lost the answer to its first question, while another one reads."""
    engine.answer = held = Held()
    held.go_on.set()
    talk, note = await client.asked()
    _, ended = await client.watched((await client.start(talk, note, id="r" * 16))["id"])
    reached, free = asyncio.Event(), asyncio.Event()
    add = client.home.store.add

    async def slow(work: Callable[[Tx], T], **named: Any) -> T:
        reached.set()
        await free.wait()
        return await add(work, **named)

    monkeypatch.setattr(client.home.store, "add", slow)
    again = asyncio.create_task(client.start(talk, note, id="r" * 16))
    await reached.wait()
    for offset, text in ((0, "wörd"), (3, "rd")):
        assert await client.watched(ended["id"], offset) == (text, ended)
    free.set()
    assert (await again)["state"] == "done"
    assert len(engine.asked) == 1
    assert not client.home.runs.active


async def test_the_id_of_a_run_that_goes_on_is_good_in_its_conversation_only(
    client: HomeClient, engine: ScriptedEngine
) -> None:
    engine.answer = held = Held()
    talk, note = await client.asked()
    run = await client.start(talk, note, id="r" * 16)
    other, question = await client.asked()
    body = {"model": "tiny", "parent": question, "id": "r" * 16}
    assert await client.problem("POST", f"/conversations/{other}/runs", body) == "conflict"
    assert (await client.start(talk, note, id="r" * 16))["id"] == run["id"]
    held.go_on.set()
    assert (await client.watched(run["id"]))[1]["state"] == "done"


async def test_of_any_number_that_are_started_at_once_some_run_and_the_others_are_refused(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_desk, "MAX_LIVE", 3)
    engine.answer = held = Held()
    talk, note = await client.asked()
    path = f"/conversations/{talk}/runs"
    replies = await asyncio.gather(
        *(client.ask("POST", path, {"model": "tiny", "parent": note}) for _ in range(100))
    )  # fmt: skip
    told = [reply.status for reply in replies if isinstance(reply, Reply)]
    assert (told.count(200), told.count(503)) == (3, 97)
    assert len((await client.get("GET", "/runs"))["runs"]) == 3
    held.go_on.set()
    await until(lambda: not client.home.runs.active)


async def test_an_answer_at_its_limit_of_tokens_says_so(client: HomeClient, engine: ScriptedEngine) -> None:
    async def answer(asked: Asked) -> None:
        begin(asked)
        asked.chunk(event("as far as"))
        asked.chunk(b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n')
        asked.last_chunk()

    engine.answer = answer
    talk, note = await client.asked()
    text, run = await client.watched((await client.start(talk, note))["id"])
    assert (text, run["state"], run["reason"]) == ("as far as", "done", "length")
    assert "limit" in run["detail"]
    document = (await client.get("GET", f"/conversations/{talk}/export"))["document"]
    await client.get("DELETE", f"/conversations/{talk}", status=204)
    await client.get("POST", "/import", document)
    assert (await client.get("GET", f"/runs/{run['id']}"))["reason"] == "length"


async def test_an_answer_that_is_too_long_ends_where_it_can_still_be_imported(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_writer, "MAX_CONTENT", 1000)

    async def answer(asked: Asked) -> None:
        begin(asked)
        for _ in range(300):
            asked.chunk(event("é" * 10))
            await asked.writer.drain()
        finish(asked)

    engine.answer = answer
    run = await client.start(*await client.asked())
    text, ended = await client.watched(run["id"])
    assert (ended["state"], ended["reason"]) == ("failed", "too-large")
    assert text == "é" * 10 * 49  # 980 bytes; of ten more characters, each could take four
    assert ended["size"] == len(text.encode())


async def test_what_is_being_written_is_not_answered(client: HomeClient, engine: ScriptedEngine) -> None:
    """An engine would be asked without the text that everybody sees."""
    engine.answer = held = Held()
    talk, note = await client.asked()
    run = await client.start(talk, note)
    more = {"role": "user", "content": "and?", "parent": run["message"]}
    question = (await client.get("POST", f"/conversations/{talk}/messages", more))["id"]
    for parent in (run["message"], question):
        body = {"model": "tiny", "parent": parent}
        assert await client.problem("POST", f"/conversations/{talk}/runs", body) == "conflict"
    beside = await client.start(talk, note)
    held.go_on.set()
    for one in (run, beside):
        await client.watched(one["id"])
    await client.watched((await client.start(talk, question))["id"])
    sent = json.loads(engine.asked[-1].body)["messages"]
    assert [message["content"] for message in sent] == ["hi", "wörd", "and?"]


async def test_attachments_that_no_engine_would_take_are_refused_before_they_are_read(
    client: HomeClient, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answer = held = Held()
    held.go_on.set()
    monkeypatch.setattr(stored, "MAX_ATTACHED", 10)
    talk = (await client.get("POST", "/conversations", {}))["id"]
    parent = None
    for content in (b"123456", b"789ab"):
        sha256 = (await client.get("PUT", "/attachments", content))["sha256"]
        attached = {"sha256": sha256, "media_type": "text/plain"}
        body = {"role": "user", "content": "x", "parent": parent, "attachments": [attached]}
        parent = (await client.get("POST", f"/conversations/{talk}/messages", body))["id"]
        if content == b"123456":
            await client.watched((await client.start(talk, parent))["id"])
    start = {"model": "tiny", "parent": parent}
    assert await client.problem("POST", f"/conversations/{talk}/runs", start) == "too-large"
    assert len((await client.get("GET", f"/conversations/{talk}"))["messages"]) == 3
    assert not client.home.runs.active


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model": "m" * 513}, "conflict"),
        ({"model": "\ud800"}, "bad-request"),
        ({"parent": "\udfff"}, "bad-request"),
        ({"options": {"temperature": 10**400}}, "bad-request"),
        ({"options": {"stop": ["\ud800"]}}, "bad-request"),
    ],
    ids=["long name", "name of half a pair", "parent of half a pair", "huge number", "stop of half a pair"],
)
async def test_what_cannot_be_stored_is_refused(client: HomeClient, change: dict[str, Any], problem: str) -> None:
    talk, note = await client.asked()
    body = {"model": "tiny", "parent": note, **change}
    assert await client.problem("POST", f"/conversations/{talk}/runs", body) == problem
    assert (await client.get("GET", "/runs"))["runs"] == []


async def test_a_run_that_was_never_begun_is_not_waited_for_by_its_stop(
    client: HomeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, free = asyncio.Event(), asyncio.Event()

    async def failing(work: object, **named: object) -> None:
        reached.set()
        await free.wait()
        raise OSError

    talk, note = await client.asked()
    monkeypatch.setattr(runs_desk, "STOP_TIME", 30.0)
    monkeypatch.setattr(client.home.store, "add", failing)
    body = {"model": "tiny", "parent": note, "id": "r" * 16}
    starting = asyncio.create_task(client.problem("POST", f"/conversations/{talk}/runs", body))
    await reached.wait()
    stopping = asyncio.create_task(client.problem("POST", f"/runs/{'r' * 16}/stop"))
    await until(lambda: client.home.runs._live["r" * 16].ending is not None)
    free.set()
    async with asyncio.timeout(10):
        assert await starting == "internal"
        assert await stopping == "not-found"
