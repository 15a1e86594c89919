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
from tests.support.engines import MODEL, EngineProcess, busy_slots, demo_stats, llama_server, slots_idle
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.gguf_model import SLOW
from tests.support.long_answer import ask, question
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
                gap = max(late - early for early, late in itertools.pairwise(arrived)) - 1 / PACE
                print(f"{part} killed: longest gap {max(gap, 0):.2f} s")
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
                        await asyncio.sleep(20.0)
                        network.refusing = network.up.blackhole = network.down.blackhole = False
                        back = time.monotonic()
                    assert answer.result() == expected
                    first = next(at for at in arrived if at > back)
                    print(f"network off for 20 s ({how}): new text {first - back:.2f} s after it was back")
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


async def test_a_bridge_that_dies_and_comes_back(short_dir: Path, paced: EngineProcess, tmp_path: Path) -> None:
    """What it had in memory is gone: the engine is asked once more, and the client's own connection goes on."""
    expected = await ask(paced.url, {}, TOKENS, 0)
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with laptop(stack, tmp_path / "laptop") as url:
            before = await asyncio.to_thread(demo_stats, paced.url)
            arrived: list[float] = []
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
                await asyncio.sleep(1.5)
                stack.processes()["bridge"].kill()
                count, back = len(arrived), await _until_connected(stack)
            assert answer.result() == expected
            assert count
            assert len(arrived) > count, "expected it to be killed in the middle"
            again = count / PACE
            print(
                f"bridge killed: new text {arrived[count] - back:.2f} s after it was back; {again:.2f} s to get there"
            )
            after = await asyncio.to_thread(demo_stats, paced.url)
            assert after["started"] - before["started"] == 2
            assert await ask(url, {}, 5, 0)


@pytest.mark.engine
async def test_a_real_engine_goes_on_after_the_bridge_died(short_dir: Path, tmp_path: Path) -> None:
    """Official clients see one completion: the text is the engine's, the ids are one, the end is one."""

    async def chunks(url: str, *, temperature: float, on_chunk: Any = None) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True, temperature=temperature, max_tokens=250
            )
            found = []
            async for chunk in stream:
                found.append(chunk)
                if on_chunk is not None:
                    on_chunk(len(found))
            return found

    def text(found: list[Any]) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)

    with llama_server(SLOW) as engine, running_stack(short_dir, engines=[engine.url]) as stack:

        def kill(count: int) -> None:
            if count == 60:
                stack.processes()["bridge"].kill()

        direct = await chunks(engine.url, temperature=0)
        async with laptop(stack, tmp_path / "laptop") as url:
            for temperature in (0, 0.1):  # with another one, connect gives it a seed
                through = await chunks(url, temperature=temperature, on_chunk=kill)
                assert text(through) == text(direct)
                assert len({chunk.id for chunk in through}) == 1
                assert [chunk.created for chunk in through] == sorted(chunk.created for chunk in through)
                assert sum(bool(chunk.choices[0].delta.role) for chunk in through if chunk.choices) == 1
                assert [c.choices[0].finish_reason for c in through if c.choices and c.choices[0].finish_reason] == [
                    "length"
                ]


async def test_an_answer_that_cannot_be_asked_for_again_ends_visibly(
    short_dir: Path, paced: EngineProcess, tmp_path: Path
) -> None:
    """A client that wants chance by name: it must see that the answer is cut, and the next request works."""
    body = question(TOKENS, PACE)
    body["options"] = {**body["options"], "seed": -1}  # type: ignore[dict-item] # it is a dictionary
    with running_stack(short_dir, engines=[paced.url]) as stack:
        async with laptop(stack, tmp_path / "laptop") as url:
            received = 0

            async def read() -> None:
                nonlocal received
                async with (
                    httpx.AsyncClient(timeout=60) as client,
                    client.stream("POST", f"{url}/api/chat", json=body) as response,
                ):
                    async for _ in response.aiter_lines():
                        received += 1
                        if received == 30:
                            stack.processes()["bridge"].kill()

            with pytest.raises(httpx.RemoteProtocolError):
                await read()
            assert received >= 30
            assert await ask(url, {}, 5, 0)


async def _until_connected(stack: Stack) -> float:
    """Wait until the bridge that was killed is back; return when it was."""
    async with httpx.AsyncClient(headers=stack.headers, timeout=10) as client:
        killed = False
        async with asyncio.timeout(40):
            while True:
                (bridge,) = (await client.get(f"{stack.url}/api/bridge")).json()
                if bridge["connected"] and killed:
                    return time.monotonic()
                killed = killed or not bridge["connected"]
                await asyncio.sleep(0.02)
