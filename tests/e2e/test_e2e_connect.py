"""A laptop away from home: official clients at `connect`, through the whole platform, sealed."""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from tests.support.connect_process import connect, laptop, laptop_of, run
from tests.support.engines import MODEL, EngineProcess, busy_slots, demo_stats, slots_idle
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy
from tests.support.long_answer import ask, question, some_more
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(150)

QUESTION: Any = [{"role": "user", "content": "go"}]
TOKENS, PACE = 100, 25
"""Four seconds."""


@pytest.fixture(scope="module")
def away(paced: EngineProcess) -> Iterator[tuple[Stack, str]]:
    """A platform whose parts may be killed, and the endpoint of a laptop that is paired with it."""
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[paced.url]) as stack,
        laptop_of(stack, Path(folder) / "laptop") as url,
    ):
        yield stack, url


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
        assert await asyncio.to_thread(slots_idle, engine.url, within=20.0) is not None


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

        assert await eventually(status, lambda found: found == 401) == 401
        assert "pair it again" in (await connect(folder, "--check")).out


# --- what is killed in the middle of an answer ---


async def test_nothing_is_lost_when_parts_are_killed(away: tuple[Stack, str], paced: EngineProcess) -> None:
    """The user's proxy, then the API, then the edge: the client's own connection goes on."""
    stack, url = away
    expected = await ask(paced.url, {}, TOKENS, 0)
    for part in ("proxy", "api", "edge"):
        before = await asyncio.to_thread(demo_stats, paced.url)
        arrived: list[float] = []
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
            await some_more(arrived)
            if part == "proxy":
                await asyncio.to_thread(stack.kill_proxy)
            else:
                stack.processes()[part].kill()
            assert not answer.done()
        assert answer.result() == expected, part
        print(f"{part} killed: longest gap {longest_gap(arrived):.2f} s")
        after = await asyncio.to_thread(demo_stats, paced.url)
        assert after["started"] - before["started"] == 1, part
        await eventually(lambda: connected(stack), bool, within=40)


async def test_the_network_is_off_for_a_while(away: tuple[Stack, str], paced: EngineProcess, tmp_path: Path) -> None:
    """For one laptop connections are refused meanwhile, for another they are dead without a word."""
    stack, _ = away
    expected = await ask(paced.url, {}, TOKENS, 0)
    async with (
        FaultProxy("127.0.0.1", stack.port) as refused,
        FaultProxy("127.0.0.1", stack.port) as silent,
        laptop(stack, tmp_path / "refused", server=f"http://127.0.0.1:{refused.port}") as one,
        laptop(stack, tmp_path / "silent", server=f"http://127.0.0.1:{silent.port}") as other,
    ):
        before = await asyncio.to_thread(demo_stats, paced.url)
        arrived: tuple[list[float], list[float]] = [], []
        async with asyncio.TaskGroup() as tasks:
            asked = zip((one, other), arrived, strict=True)
            answers = [tasks.create_task(ask(url, {}, TOKENS, PACE, into)) for url, into in asked]
            for each in arrived:
                await some_more(each)
            refused.refusing = True
            refused.cut("rst")
            silent.up.blackhole = silent.down.blackhole = True
            await asyncio.sleep(20.0)
            assert not any(answer.done() for answer in answers)
            refused.refusing = silent.up.blackhole = silent.down.blackhole = False
            back = time.monotonic()
        assert [answer.result() for answer in answers] == [expected, expected]
        for how, each in zip(("refused", "silent"), arrived, strict=True):
            first = next(at for at in each if at > back)
            print(f"network off for 20 s ({how}): new text {first - back:.2f} s after it was back")
        after = await asyncio.to_thread(demo_stats, paced.url)
        assert after["started"] - before["started"] == 2


async def test_another_bridge_pulls_and_its_tunnel_is_cut(
    away: tuple[Stack, str], paced: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def progress(url: str) -> list[Any]:
        async with ollama_at(url) as client:
            return [(part.status, part.total) async for part in await client.pull("demo:other", stream=True)]

    stack, not_allowed = away
    direct = await progress(paced.url)
    expected = await ask(paced.url, {}, TOKENS, 0)
    monkeypatch.setenv("C2L_BRIDGE_ALLOW", "pull")
    async with (
        FaultProxy("127.0.0.1", stack.port) as fault,
        second_bridge(stack, paced, fault),
        laptop(stack, tmp_path / "laptop", bridge="second") as url,
    ):
        assert await progress(url) == direct
        async with ollama_at(not_allowed) as client:
            with pytest.raises(ollama.ResponseError) as caught:  # what is not allowed at home is not, sealed or not
                await client.pull("demo:other")
            assert caught.value.status_code == 403
        arrived: list[float] = []
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
            for how in ("rst", "fin", "rst"):
                await some_more(arrived, answer)
                assert fault.cut(how)
        assert answer.result() == expected
        print(f"tunnel cut three times: longest gap {longest_gap(arrived):.2f} s")


async def test_a_bridge_that_dies_and_comes_back(away: tuple[Stack, str], paced: EngineProcess) -> None:
    """What it had in memory is gone: the engine is asked once more, and the client's own connection goes on.

    Not for a client that wants chance by name: it must see that its answer is cut. The next request works.
    """
    stack, url = away
    expected = await ask(paced.url, {}, TOKENS, 0)
    before = await asyncio.to_thread(demo_stats, paced.url)
    arrived: list[float] = []
    received: list[str] = []

    async def by_chance() -> None:
        body = question(TOKENS, PACE)
        body["options"] = {**body["options"], "seed": -1}  # type: ignore[dict-item] # it is a dictionary
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{url}/api/chat", json=body) as response,
        ):
            async for line in response.aiter_lines():
                received.append(json.loads(line)["message"]["content"])  # noqa: PERF401 - it breaks off

    async def cut_short() -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await by_chance()

    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(ask(url, {}, TOKENS, PACE, arrived))
        tasks.create_task(cut_short())
        await some_more(arrived)
        await some_more(received)
        stack.processes()["bridge"].kill()
        count = len(arrived)
        await eventually(lambda: connected(stack), lambda up: not up)
        await eventually(lambda: connected(stack), bool, within=40)
        back = time.monotonic()
    assert answer.result() == expected
    assert len(arrived) > count, "expected it to be killed in the middle"
    gap = arrived[count] - back
    print(f"bridge killed: new text {gap:.2f} s after it was back; {count / PACE:.2f} s to get there")
    assert received
    assert expected.startswith("".join(received))
    after = await asyncio.to_thread(demo_stats, paced.url)
    assert after["started"] - before["started"] == 3
    assert await ask(url, {}, 5, 0)


@pytest.mark.engine
async def test_a_real_engine_goes_on_after_the_bridge_died(
    slow_stack: tuple[Stack, EngineProcess], tmp_path: Path
) -> None:
    """Official clients see one completion: the text is the engine's, the ids are one, the end is one."""
    stack, engine = slow_stack

    async def chunks(url: str, on_chunk: Any = None) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True, temperature=0.1, max_tokens=160
            )
            found = []
            async for chunk in stream:
                found.append(chunk)
                if on_chunk is not None:
                    on_chunk(len(found))
            return found

    def text(found: list[Any]) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)

    def kill(count: int) -> None:
        if count == 30:
            stack.processes()["bridge"].kill()

    direct = await chunks(engine.url)
    async with laptop(stack, tmp_path / "laptop") as url:  # which gives it a seed
        through = await chunks(url, kill)
        await eventually(lambda: connected(stack), bool, within=40)
    assert text(through) == text(direct)
    assert len({chunk.id for chunk in through}) == 1
    assert [chunk.created for chunk in through] == sorted(chunk.created for chunk in through)
    assert sum(bool(chunk.choices[0].delta.role) for chunk in through if chunk.choices) == 1
    assert [c.choices[0].finish_reason for c in through if c.choices and c.choices[0].finish_reason] == ["length"]


def longest_gap(arrived: list[float]) -> float:
    """Return the longest time without text, besides the engine's own pace."""
    return max(0.0, max(late - early for early, late in itertools.pairwise(arrived)) - 1 / PACE)


async def connected(stack: Stack) -> bool:
    """Tell whether the platform says that its own bridge is there."""
    async with httpx.AsyncClient(headers=stack.headers, timeout=10) as client:
        try:
            answer = await client.get(f"{stack.url}/api/bridge")
        except httpx.TransportError:
            return False
    return answer.status_code == 200 and any(
        bridge["connected"] for bridge in answer.json() if bridge["name"] != "second"
    )
