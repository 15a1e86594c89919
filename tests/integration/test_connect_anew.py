"""The bridge ends in the middle of an answer and comes back: its real gateway, and an engine that keeps to seeds."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.support.connect_parts import connected, pair_with, url_of
from tests.support.eventually import eventually
from tests.support.gateway_front import GatewayFront, gateway_front
from tests.support.scripted_engine import Asked, scripted_engine

LENGTH = 600
"""Characters of an answer."""


def answer_of(seed: int) -> str:
    """Return what the engine says with a seed."""
    rng = random.Random(seed)
    return "".join(rng.choice("abcdefgh äöü 一二三 🎈🦊") for _ in range(LENGTH))


class Seeded:
    """Answers as the seed says, in pieces that differ each time; waits in the middle while `gate` is closed."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.told = 0
        """Characters of the present answer."""
        self.gate = asyncio.Event()
        self.other = False
        """Say something else."""

    async def __call__(self, asked: Asked) -> None:
        body = json.loads(asked.body)
        chat = asked.target == "/v1/chat/completions"
        seed = body["seed"] if chat else body["options"]["seed"]
        self.seeds.append(seed)
        number = len(self.seeds)
        kind = "text/event-stream" if chat else "application/x-ndjson"
        asked.head(200, f"content-type: {kind}", chunked=True)
        text = answer_of(seed + self.other)
        at = 0
        while at < len(text):
            size = random.Random(at + number).randrange(1, 9)
            asked.chunk(event(chat, number, text[at : at + size]))
            at = self.told = min(at + size, len(text))
            await asked.writer.drain()
            if at > LENGTH // 2 and not self.gate.is_set():
                await self.gate.wait()
            await asyncio.sleep(0.001)
        asked.chunk(event(chat, number, "", end=True))
        asked.last_chunk()


def event(chat: bool, number: int, text: str, *, end: bool = False) -> bytes:
    if not chat:
        value = {"model": "tiny", "message": {"role": "assistant", "content": text}, "done": end}
        return json.dumps(value | ({"done_reason": "stop"} if end else {})).encode() + b"\n"
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": "stop" if end else None}
    value = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 5, "model": "tiny",
             "choices": [choice]}  # fmt: skip
    return (
        b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n" + (b"data: [DONE]\n\n" if end else b"")
    )


@asynccontextmanager
async def away_from_home(tmp_path: Path, kind: str) -> AsyncIterator[tuple[Seeded, GatewayFront, str]]:
    seeded = Seeded()
    async with (
        scripted_engine(kind=kind, answer=seeded) as engine,
        gateway_front(tmp_path / "home", engine.url) as front,
    ):
        await pair_with(tmp_path / "laptop", front.invite())
        async with connected(tmp_path / "laptop") as connect:
            yield seeded, front, url_of(connect)


async def restart(seeded: Seeded, front: GatewayFront, received: list[Any]) -> None:
    """End the bridge in the middle of an answer, of which the client has some, and start it again."""

    async def told() -> int:
        return seeded.told

    await eventually(told, lambda found: found > LENGTH // 2)
    await eventually(_length(received), lambda found: found > 5)
    await front.stop()
    seeded.told = 0
    seeded.gate.set()
    await front.start()


async def by_openai(url: str, received: list[Any]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        asked: Any = [{"role": "user", "content": "hello"}]
        stream = await client.chat.completions.create(model="tiny", messages=asked, stream=True)
        async for chunk in stream:
            received.append(chunk)  # noqa: PERF401 - others look at it meanwhile


async def test_openais_client_sees_one_completion(tmp_path: Path) -> None:
    async with away_from_home(tmp_path, "openai") as (seeded, front, url):
        chunks: list[Any] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(by_openai(url, chunks))
            await restart(seeded, front, chunks)
        assert len(seeded.seeds) == 2
        assert len(set(seeded.seeds)) == 1
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer_of(seeded.seeds[0])
        assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]


async def lines(url: str, received: list[Any]) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{url}/api/chat", json=body) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            received.append(json.loads(line))  # noqa: PERF401 - what came stays when it breaks off


async def test_ollamas_api_goes_on_too(tmp_path: Path) -> None:
    async with away_from_home(tmp_path, "ollama") as (seeded, front, url):
        received: list[Any] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lines(url, received))
            await restart(seeded, front, received)
        assert "".join(one["message"]["content"] for one in received) == answer_of(seeded.seeds[0])
        assert [one["done"] for one in received].count(True) == 1
        assert len(seeded.seeds) == 2


async def test_an_engine_that_says_something_else_breaks_it_off(tmp_path: Path) -> None:
    async with away_from_home(tmp_path, "ollama") as (seeded, front, url):
        received: list[Any] = []

        async def read() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await lines(url, received)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await eventually(_length(received), lambda found: found > 5)
            seeded.other = True
            await restart(seeded, front, received)
        assert answer_of(seeded.seeds[0]).startswith("".join(one["message"]["content"] for one in received))
        assert not any(one["done"] for one in received)


def _length(of: list[Any]) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return len(of)

    return look
