"""The official clients, unmodified, at the local endpoint: they see what they see at the engine itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from tests.support.connect_parts import at_home, url_of
from tests.support.engines import EngineProcess, demo_engine, demo_stats
from tests.support.eventually import eventually
from tests.support.small_home import SmallHome, engine_at, small_home

from cloudtolocalllm.connect.service import Connect

QUESTION: Any = [{"role": "user", "content": "go"}]
PACE: Any = {"demo_tokens_per_second": 60, "demo_tokens": 40}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with demo_engine(load_seconds=0, prefill_seconds=0) as process:
        yield process


@pytest.fixture
async def laptop(engine: EngineProcess, tmp_path: Path) -> AsyncIterator[tuple[SmallHome, Connect]]:
    async with small_home(engine_at(engine.url)) as home, at_home(tmp_path, home) as connect:
        yield home, connect


@asynccontextmanager
async def ollama_at(url: str) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=url, timeout=30)
    try:
        yield client
    finally:
        await client._client.aclose()  # it has no close of its own


async def ollama_chunks(url: str) -> list[str | None]:
    async with ollama_at(url) as client:
        answer = await client.chat("demo:latest", messages=QUESTION, stream=True, options=PACE)
        return [part.message.content async for part in answer]


async def openai_chunks(url: str) -> list[str | None]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        stream: Any = await client.chat.completions.create(
            model="demo:latest", messages=QUESTION, stream=True, extra_body={"options": PACE}
        )
        return [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]


@pytest.mark.parametrize("chunks", [ollama_chunks, openai_chunks])
async def test_a_stream_is_chunk_for_chunk_the_engines(
    chunks: Any, engine: EngineProcess, laptop: tuple[SmallHome, Connect]
) -> None:
    direct = await chunks(engine.url)
    assert len(direct) > 10
    assert await chunks(url_of(laptop[1])) == direct


@pytest.mark.parametrize("chunks", [ollama_chunks, openai_chunks])
async def test_it_is_that_too_when_its_connection_breaks(
    chunks: Any, engine: EngineProcess, laptop: tuple[SmallHome, Connect]
) -> None:
    home, connect = laptop
    direct = await chunks(engine.url)
    home.cut = [2000, 16, 1000]
    assert await chunks(url_of(connect)) == direct
    assert home.cut == []
    assert len([target for target in home.started if "chat" in target]) == 1


async def test_chunks_arrive_while_the_engine_speaks(
    laptop: tuple[SmallHome, Connect], engine: EngineProcess
) -> None:
    async with ollama_at(url_of(laptop[1])) as client:
        options: Any = {"demo_tokens_per_second": 60, "demo_tokens": 8, "demo_hang_after_tokens": 5}
        answer: Any = await client.chat("demo:latest", messages=QUESTION, stream=True, options=options)
        arrived = [await anext(aiter(answer)) for _ in range(5)]  # nothing gathers them till the end: there is none
        assert all(part.message.content for part in arrived)
        assert (await asyncio.to_thread(demo_stats, engine.url))["running"] == 1
        await answer.aclose()

    async def running() -> int:
        return (await asyncio.to_thread(demo_stats, engine.url))["running"]

    await eventually(running, lambda found: not found)


async def test_what_is_not_streamed(laptop: tuple[SmallHome, Connect]) -> None:
    url = url_of(laptop[1])
    async with ollama_at(url) as client:
        assert (await client.generate("demo:latest", prompt="go", options=PACE)).done
        assert [model.model for model in (await client.list()).models] == ["demo:latest"]
        assert (await client.show("demo:latest")).details is not None
        assert len((await client.embed("demo:latest", input=["a", "b"])).embeddings) == 2
        assert (await client.ps()).models is not None
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client_of_openai:
        assert [model.id async for model in client_of_openai.models.list()] == ["demo:latest"]


async def test_a_pull_tells_its_progress(laptop: tuple[SmallHome, Connect], engine: EngineProcess) -> None:
    async def progress(url: str) -> list[Any]:
        async with ollama_at(url) as client:
            return [(part.status, part.total) async for part in await client.pull("demo:other", stream=True)]

    direct = await progress(engine.url)
    assert len(direct) > 2
    assert await progress(url_of(laptop[1])) == direct


async def test_the_engines_errors_are_its_own(laptop: tuple[SmallHome, Connect]) -> None:
    async with ollama_at(url_of(laptop[1])) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat("nobody:latest", messages=QUESTION)
    assert caught.value.status_code == 404


async def test_a_client_that_leaves_stops_the_engine(
    laptop: tuple[SmallHome, Connect], engine: EngineProcess
) -> None:
    home, connect = laptop
    async with ollama_at(url_of(connect)) as client:
        before = demo_stats(engine.url)
        options: Any = {"demo_tokens_per_second": 20, "demo_tokens": 2000}
        answer: Any = await client.chat("demo:latest", messages=QUESTION, stream=True, options=options)
        await anext(aiter(answer))
        await answer.aclose()

    async def stats() -> dict[str, int]:
        return await asyncio.to_thread(demo_stats, engine.url)

    await eventually(stats, lambda now: now["cancelled"] == before["cancelled"] + 1 and not now["running"])
    assert len(home.stopped) == 1
