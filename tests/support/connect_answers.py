"""One long answer at the local endpoint over a small home, and looks at how far it is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from tests.support.connect_parts import url_of
from tests.support.small_home import Run, SmallHome

from cloudtolocalllm.connect.service import Connect

PIECES = tuple(b'{"message":{"content":"word %d "}}\n' % number for number in range(120))
WHOLE = b"".join(PIECES)
END = b'{"message":{"content":""},"done":true,"done_reason":"stop"}\n'
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "a secret question"}], "stream": True}


async def ask(url: str, **fields: object) -> bytes:
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.post(f"{url}/api/chat", json={**BODY, **fields})
        assert response.status_code == 200, response.text
        return response.content


@asynccontextmanager
async def answering(connect: Connect) -> AsyncIterator[httpx.Response]:
    """Ask, and leave at the end of the block."""
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{url_of(connect)}/api/chat", json=BODY) as response,
    ):
        yield response


async def cut_short(connect: Connect, each: Callable[[bytes], None]) -> bytes:
    """Ask, and return what came before the connection broke; fail if it did not."""
    received = b""
    async with answering(connect) as response:
        try:
            async for data in response.aiter_raw():
                received += data
                each(received)
        except httpx.RemoteProtocolError:
            return received
    raise AssertionError("expected a broken connection, got a whole answer")


def length_of(received: bytearray) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return len(received)

    return look


def speaking(count: int) -> Callable[[list[Run]], bool]:
    return lambda runs: sum(bool(run.data) for run in runs) == count


def runs_of(home: SmallHome) -> Callable[[], Awaitable[list[Run]]]:
    async def look() -> list[Run]:
        return list(home.runs.values())

    return look


def looking_at(what: list[str]) -> Callable[[], Awaitable[list[str]]]:
    async def look() -> list[str]:
        return what

    return look
