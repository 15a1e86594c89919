import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.api_parts import MARK, Paired, RunningApi, engine, problem, running_api

from cloudtolocalllm.api.routes import streaming
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts.control import EngineState, Presence, encode


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


@asynccontextmanager
async def event_stream(client: httpx.AsyncClient) -> AsyncIterator["asyncio.Queue[str]"]:
    """Yield a queue of the stream's blocks; "" when it ended."""
    blocks: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        buffer = ""
        async with client.stream("GET", "/api/streaming/events") as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            async for text in response.aiter_text():
                buffer += text
                *whole, buffer = buffer.split("\n\n")
                for block in whole:
                    blocks.put_nowait(block)
        blocks.put_nowait("")

    task = asyncio.get_running_loop().create_task(read())
    try:
        yield blocks
    finally:
        task.cancel()
        await asyncio.wait([task])


async def next_state(blocks: "asyncio.Queue[str]", after: str = "") -> str:
    """Return the next state that is told; `after` is one that may be told again before, with other news."""
    async with asyncio.timeout(5):
        while True:
            block = await blocks.get()
            if block.startswith("data: "):
                state = str(json.loads(block.removeprefix("data: "))["state"])
                if state != after:
                    return state
            if not block:
                return "ended"


async def test_events_tell_each_change_as_it_happens(api: RunningApi) -> None:
    person = api.person()
    async with api.client(**person.headers) as client, event_stream(client) as blocks:
        assert await next_state(blocks) == "no-bridge"
        key = ProofKey.generate()
        made = await client.post("/api/bridge", json={"name": "Desktop", "jwk": key.public_jwk()})
        paired = Paired(made.json()["bridge_id"], person.id, made.json()["credential"], key)
        assert await next_state(blocks) == "bridge-offline"
        async with api.bridge(paired, engine(EngineState.DOWN)) as socket:
            assert await next_state(blocks, "bridge-offline") == "engine-down"
            await socket.send(encode(Presence((engine(EngineState.UP),))))
            assert await next_state(blocks, "engine-down") == "ready"
        assert await next_state(blocks, "ready") == "bridge-offline"


async def test_events_end_with_the_session(api: RunningApi) -> None:
    async with await api.sign_in(api.owner) as client, event_stream(client) as blocks:
        assert await next_state(blocks) == "no-bridge"
        assert (await client.post("/api/auth/sign-out", headers=MARK)).status_code == 200
        assert await next_state(blocks) == "ended"


async def test_events_end_when_another_process_revokes_the_key(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE", 0.1)
    person = api.person()
    async with api.client(**person.headers) as client, event_stream(client) as blocks:
        assert await next_state(blocks) == "no-bridge"
        async with asyncio.timeout(5):
            assert await blocks.get() == ": keep-alive"
        await api.revoke_key(person)
        assert await next_state(blocks) == "ended"


async def test_events_end_when_the_key_expires(api: RunningApi) -> None:
    person = api.key_of(api.owner, lifetime=2.0)
    async with api.client(**person.headers) as client, event_stream(client) as blocks:
        assert await next_state(blocks) == "no-bridge"
        assert await next_state(blocks) == "ended"


async def test_events_go_on_when_the_state_does_not_answer_for_a_while(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE", 0.1)
    person = api.person()
    async with api.client(**person.headers) as client, event_stream(client) as blocks:
        assert await next_state(blocks) == "no-bridge"
        api.database.execute("ALTER TABLE members RENAME TO hidden")
        async with asyncio.timeout(5):
            for _ in range(5):
                assert await blocks.get() == ": keep-alive"
        api.database.execute("ALTER TABLE hidden RENAME TO members")
        await api.pair(person.id)
        assert await next_state(blocks) == "bridge-offline"


async def test_event_streams_of_a_user_are_bounded_and_given_back(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MAX_STREAMS", 1)
    person, other = api.person(), api.person()
    async with api.client(**person.headers) as client:
        async with event_stream(client) as blocks:
            assert await next_state(blocks) == "no-bridge"
            refused = await client.get("/api/streaming/events")
            assert problem(refused) == (503, "overloaded")
            async with api.client(**other.headers) as theirs, event_stream(theirs) as their_blocks:
                assert await next_state(their_blocks) == "no-bridge"
        for _ in range(100):
            async with event_stream(client) as blocks:
                async with asyncio.timeout(5):
                    if (await blocks.get()).startswith("retry"):
                        break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("expected the place to be given back")


async def test_stopping_ends_event_streams_and_lets_requests_finish(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        person = api.person()
        await api.pair(person.id)
        async with api.client(**person.headers) as client, event_stream(client) as blocks:
            assert await next_state(blocks) == "bridge-offline"
            api.stop.set()
            assert await next_state(blocks) == "ended"
            async with asyncio.timeout(5):
                await asyncio.wait([api.task])
            assert api.task.exception() is None
