"""A laptop away from home: official clients at `connect`, through the whole platform, sealed."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from tests.support.connect_process import connect, laptop, run
from tests.support.engines import MODEL, EngineProcess, busy_slots, demo_stats, slots_idle
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.long_answer import ask
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(150)

QUESTION: Any = [{"role": "user", "content": "go"}]
TOKENS, PACE = 160, 25
"""Some six seconds."""


@asynccontextmanager
async def ollama_at(url: str) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=url, timeout=60)
    try:
        yield client
    finally:
        await client._client.aclose()  # it has no close of its own


async def openai_chunks(url: str, model: str) -> list[str | None]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        stream = await client.chat.completions.create(model=model, messages=QUESTION, stream=True, temperature=0)
        return [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]


async def ollama_chunks(url: str, model: str) -> list[str | None]:
    async with ollama_at(url) as client:
        answer = await client.chat(model, messages=QUESTION, stream=True)
        return [part.message.content async for part in answer]


# --- the official clients ---


@pytest.mark.engine
async def test_openai_sees_what_the_engine_says(
    openai_stack: Stack, real_engine: EngineProcess, tmp_path: Path
) -> None:
    direct = await openai_chunks(real_engine.url, MODEL)
    assert len(direct) > 10
    async with laptop(openai_stack, tmp_path / "laptop") as url:
        assert await openai_chunks(url, MODEL) == direct
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            assert [model.id async for model in client.models.list()]


@pytest.mark.engine
async def test_ollama_sees_what_the_engine_says(ollama_stack: Stack, standin: EngineProcess, tmp_path: Path) -> None:
    model = f"{MODEL}:latest"
    direct = await ollama_chunks(standin.url, model)
    assert len(direct) > 10
    async with laptop(ollama_stack, tmp_path / "laptop") as url, ollama_at(url) as client:
        assert await ollama_chunks(url, model) == direct
        assert [one.model for one in (await client.list()).models] == [model]
        assert (await client.show(model)).details is not None
        assert len((await client.embed(model, input=["a", "b"])).embeddings) == 2
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat("nobody:latest", messages=QUESTION)
        assert caught.value.status_code == 404


@pytest.mark.engine
async def test_a_client_that_leaves_stops_the_engine(slow_stack: tuple[Stack, EngineProcess], tmp_path: Path) -> None:
    stack, engine = slow_stack
    body = {"model": MODEL, "messages": QUESTION, "stream": True, "max_tokens": 2000}
    async with laptop(stack, tmp_path / "laptop") as url:
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
        ):
            assert response.status_code == 200
            await anext(response.aiter_lines())
            assert await asyncio.to_thread(busy_slots, engine.url) == 1
        assert await asyncio.to_thread(slots_idle, engine.url, within=2.0) is not None


async def test_a_pull_tells_its_progress(
    short_dir: Path, paced: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def progress(url: str) -> list[Any]:
        async with ollama_at(url) as client:
            return [(part.status, part.total) async for part in await client.pull("demo:other", stream=True)]

    direct = await progress(paced.url)
    monkeypatch.setenv("C2L_BRIDGE_ALLOW", "pull")
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with second_bridge(stack, paced), laptop(stack, tmp_path / "laptop", bridge="second") as url:
            assert await progress(url) == direct
        async with laptop(stack, tmp_path / "other") as url, ollama_at(url) as client:
            with pytest.raises(ollama.ResponseError) as caught:  # what is not allowed at home is not, sealed or not
                await client.pull("demo:other")
            assert caught.value.status_code == 403


async def test_a_device_that_is_removed_at_home_is_out(paced_stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "laptop"
    async with laptop(paced_stack, folder) as url:
        assert await ask(url, {}, 5, 0)
        listed = await connect(folder, "list")
        device = listed.out.split("  device ")[1].split()[0]
        done = await run(
            ["bridge", "devices", f"--remove={device}", "--data-dir", str(paced_stack.data_dir / "bridge")]
        )
        assert done.status == 0, done.err

        async def status() -> int:
            async with httpx.AsyncClient(timeout=20) as client:
                return (await client.post(f"{url}/api/generate", json={"model": "demo:latest"})).status_code

        assert await eventually(status, lambda found: found == 401, within=5) == 401
        assert "pair it again" in (await connect(folder, "--check")).out


# --- what is killed in the middle of an answer ---


async def test_nothing_is_lost_when_parts_are_killed(short_dir: Path, paced: EngineProcess, tmp_path: Path) -> None:
    """The user's proxy, then the API, then the edge: the client's own connection goes on."""
    expected = await ask(paced.url, {}, TOKENS, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with laptop(stack, tmp_path / "laptop") as url:
            for part in ("proxy", "api", "edge"):
                before = await asyncio.to_thread(demo_stats, paced.url)
                arrived: list[float] = []
                async with asyncio.TaskGroup() as tasks:
                    answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                    await asyncio.sleep(2.0)
                    assert arrived
                    if part == "proxy":
                        stack.kill_proxy()
                    else:
                        stack.processes()[part].kill()
                assert answer.result() == expected, part
                after = await asyncio.to_thread(demo_stats, paced.url)
                assert after["started"] - before["started"] == 1, part


async def test_the_network_is_off_for_a_while(short_dir: Path, paced: EngineProcess, tmp_path: Path) -> None:
    expected = await ask(paced.url, {}, TOKENS, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with FaultProxy("127.0.0.1", stack.port) as network:
            server = f"http://127.0.0.1:{network.port}"
            async with laptop(stack, tmp_path / "laptop", server=server) as url:
                for how in ("refused", "silent"):
                    arrived: list[float] = []
                    async with asyncio.TaskGroup() as tasks:
                        answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                        await asyncio.sleep(1.5)
                        if how == "refused":
                            network.refusing = True
                            network.cut("rst")
                        else:
                            network.up.blackhole = network.down.blackhole = True
                        await asyncio.sleep(9.0)
                        network.refusing = network.up.blackhole = network.down.blackhole = False
                        back = time.monotonic()
                    assert answer.result() == expected
                    first = next(at for at in arrived if at > back)
                    assert first - back < 3.5, how


async def test_the_bridges_tunnel_is_cut(short_dir: Path, paced: EngineProcess, tmp_path: Path) -> None:
    expected = await ask(paced.url, {}, TOKENS, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with (
            FaultProxy("127.0.0.1", stack.port) as fault,
            second_bridge(stack, paced, fault),
            laptop(stack, tmp_path / "laptop", bridge="second") as url,
        ):
            arrived: list[float] = []
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                for how in ("rst", "fin", "rst"):
                    await asyncio.sleep(1.2)
                    assert fault.cut(how)
            assert answer.result() == expected
            assert max(after - before for before, after in itertools.pairwise(arrived)) < 3.0


async def test_a_bridge_that_dies_ends_its_answers_visibly(
    short_dir: Path, paced: EngineProcess, tmp_path: Path
) -> None:
    """What it had in memory is gone: the client must see that, and the next request works."""
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with laptop(stack, tmp_path / "laptop") as url:
            arrived: list[float] = []
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(_kept(ask(url, {}, TOKENS, PACE, arrived)))
                await asyncio.sleep(1.5)
                stack.processes()["bridge"].kill()
            assert isinstance(asking.result(), httpx.RemoteProtocolError)
            assert arrived
            assert await ask(url, {}, 5, 0)


async def _kept(work: Any) -> Exception | None:
    """Return the error of something, None when there is none."""
    try:
        await work
    except httpx.HTTPError as error:
        return error
    return None
