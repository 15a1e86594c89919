"""A bridge with one paired device, for tests of the gateway."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.bridge_parts import Home, home
from tests.support.scripted_engine import Asked, ScriptedEngine
from tests.support.sealed_client import SealedClient, TunnelOuter, link_of

from cloudtolocalllm.bridge.gateway.gateway import Gateway
from cloudtolocalllm.bridge.store.store import HomeStore

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True}
NAMED = b"exchange 0123456"
"""16 bytes."""


def gateway_of(at: Home) -> Gateway:
    assert at.bridge.gateway is not None
    return at.bridge.gateway


def store_of(at: Home) -> HomeStore:
    assert at.bridge.home is not None
    return at.bridge.home.store


@asynccontextmanager
async def paired(folder: Path, engine: ScriptedEngine, **settings: Any) -> AsyncGenerator[tuple[Home, SealedClient]]:
    """Run a bridge that has one device."""
    async with home(folder, engine.url, **settings) as at:
        more = {"now": settings["clock"].wall} if "clock" in settings else {}
        yield at, await SealedClient.paired(TunnelOuter(at), link_of(at), **more)


async def stream_three(asked: Asked) -> None:
    """Answer with three events."""
    asked.head(200, "content-type: text/event-stream", "server: llama.cpp", "set-cookie: a=b", chunked=True)
    for part in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"):
        asked.chunk(part)
        await asked.writer.drain()
    asked.last_chunk()


THREE = b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
