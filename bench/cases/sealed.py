"""What sealing costs: processor time at the bridge for each sealed chunk, and the first token, against plain ones.

Both ways lead through edge, proxy and tunnel to the same engine, and are asked by the same HTTP client.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from tests.support.sealed_client import HttpOuter, SealedClient

from bench.case import Bench
from bench.cases.cpu_per_token import groups_of
from bench.measure import CpuMeter
from bench.platform import CHAT, stamped
from bench.report import Result, median, percentile
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.cli.bridge_devices import LocalHome
from cloudtolocalllm.cli.layout import Layout

STREAMS = 50
PACE = 30.0
RAMP = 2.0
"""Seconds from the first request to the measurement."""
REQUESTS = 100
ROUNDS = 3
CHUNK_BAR = 15.0
"""Microseconds at the bridge."""
FIRST_BAR = 5.0
"""Milliseconds; the first content does not wait for a flush."""


@dataclass(slots=True)
class Read:
    """What comes of requests of one way."""

    firsts: list[float] = field(default_factory=list)
    """Milliseconds from a request to its first content."""
    pieces: int = 0


Ask = Callable[[str, Read], Awaitable[None]]
"""Asks with a content, and reads to the end."""


async def run(bench: Bench) -> list[Result]:
    """Measure both ways in turn."""
    async with _ways(bench) as ways:
        firsts = await _firsts(bench, ways)
        added, plain = await _chunks(bench, ways)
    return [
        Result(
            "sealed_first_token_added_p50", firsts["sealed"] - firsts["plain"], "ms", firsts["plain"], FIRST_BAR,
            note="added to a plain request's on the same path, which is the baseline",
        ),
        Result(
            "sealed_bridge_cpu_per_chunk", added, "us", None, CHUNK_BAR,
            note=f"added at the bridge for each sealed chunk; plain it takes {plain:.0f} us a token",
        ),
    ]  # fmt: skip


@asynccontextmanager
async def _ways(bench: Bench) -> AsyncIterator[dict[str, Ask]]:
    stack = bench.stack
    credential = Layout(stack.data_dir).bridge_credential
    link = LocalHome(credential, BridgeIdentity.load(credential)).offer()
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=unlimited) as http:
        client = await SealedClient.paired(HttpOuter(http, stack.url, stack.headers), link, "bench")

        async def plain(content: str, read: Read) -> None:
            began = time.monotonic()
            async with http.stream("POST", stack.url + CHAT, headers=stack.headers, content=content) as response:
                if response.status_code != 200:
                    raise RuntimeError(f"expected 200, got {response.status_code}")
                async for _ in response.aiter_raw():
                    began = _count(read, began)

        async def sealed(content: str, read: Read) -> None:
            began = time.monotonic()
            answer = await client.open("POST", CHAT, content=content.encode())
            if answer.status != 200:
                raise RuntimeError(f"expected 200, got {answer.status}")
            try:
                while await answer.some():
                    began = _count(read, began)
            finally:
                await answer.leave()

        yield {"plain": plain, "sealed": sealed}


def _count(read: Read, began: float) -> float:
    read.pieces += 1
    if began:
        read.firsts.append((time.monotonic() - began) * 1000)
    return 0.0


async def _firsts(bench: Bench, ways: dict[str, Ask]) -> dict[str, float]:
    """Return milliseconds to the first content, asked one after the other."""
    content = stamped(0, tokens=2)
    medians: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bench.rounds(ROUNDS)):
        reads = {name: Read() for name in ways}
        for _ in range(REQUESTS):
            for name, ask in ways.items():
                await ask(content, reads[name])
        for name, read in reads.items():
            medians[name].append(percentile(read.firsts, 50))
    return {name: median(found) for name, found in medians.items()}


async def _chunks(bench: Bench, ways: dict[str, Ask]) -> tuple[float, float]:
    """Return microseconds that the bridge takes more for each sealed chunk, and those for each plain token."""
    content, seconds = stamped(PACE), bench.seconds(9)
    bridge = {"bridge": groups_of(bench.stack.processes())["bridge"]}
    added: list[float] = []
    plain: list[float] = []
    for _ in range(bench.rounds(ROUNDS)):
        spent: dict[str, float] = {}
        pieces: dict[str, int] = {}
        for name, ask in ways.items():
            read = Read()
            tasks = [asyncio.ensure_future(ask(content, read)) for _ in range(STREAMS)]
            await asyncio.sleep(RAMP)  # what a request costs is in the first token
            meter, before = CpuMeter(bridge), read.pieces
            await asyncio.sleep(seconds)
            spent[name], pieces[name] = meter.seconds()["bridge"], read.pieces - before
            for task in tasks:
                task.cancel()
            if any(isinstance(end, Exception) for end in await asyncio.gather(*tasks, return_exceptions=True)):
                raise RuntimeError(f"expected {STREAMS} streams without error")
        added.append((spent["sealed"] - spent["plain"]) / pieces["sealed"] * 1e6)
        plain.append(spent["plain"] / (STREAMS * PACE * seconds) * 1e6)
    return median(added), median(plain)
