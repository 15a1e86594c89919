"""What sealing costs: processor time at the bridge for each chunk, token and request, and the first token.

Sealed and plain requests lead through edge, proxy and tunnel to the same engine, are asked by the same HTTP client,
and take turns: each round measures both, in alternating order, and only what a round's two differ by is reported.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

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
SLOW, USUAL = 8.0, 30.0
"""Tokens a second of each stream: so slow that every token is a chunk of its own, and as they usually come."""
SPREAD = 2.0
"""Seconds over which the streams begin, one after the other: at the bridge, what comes at the same time is passed on
together and costs less each, so both ways' streams have to come alike."""
RAMP = 2.0
"""Seconds from the last request to the measurement: what requests cost is measured by itself."""
MOST_IN_A_CHUNK = 1.3
"""Tokens, of those that come slowly: an engine that was late sends several at once."""
SECONDS = 6.0
REQUESTS = 100
ROUNDS = 4
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
    """Of sealed answers these are chunks."""
    tokens: int = 0


Ask = Callable[[str, Read], Awaitable[None]]
"""Asks with a content, and reads to the end."""


@dataclass(slots=True)
class Round:
    """What one round found, by way."""

    figures: dict[str, float] = field(default_factory=dict)

    @property
    def added(self) -> float:
        """What sealing adds."""
        return self.figures["sealed"] - self.figures["plain"]


async def run(bench: Bench) -> list[Result]:
    """Measure both ways in turn."""
    async with _ways(bench) as ways:
        firsts, requests = await _requests(bench, ways)
        chunks = await _streams(bench, ways, SLOW, a_chunk_each=True)
        alone = await _streams(bench, ways, SLOW, streams=1, a_chunk_each=True)
        tokens = await _streams(bench, ways, USUAL, a_chunk_each=False)
    return [
        Result(
            "sealed_first_token_added_p50", _added(firsts), "ms", _plain(firsts), FIRST_BAR,
            note=f"added to a plain request's on the same path, which is the baseline; {_spread(firsts)}",
        ),
        Result(
            "sealed_bridge_cpu_per_chunk", _added(chunks), "us", _plain(chunks), CHUNK_BAR,
            note=f"added at the bridge where each token is a chunk; baseline: a plain token; {_spread(chunks)}",
        ),
        Result(
            "sealed_bridge_cpu_per_chunk_alone", _added(alone), "us", _plain(alone),
            note=f"the same of one stream, for which alone the bridge wakes at the grid; {_spread(alone)}",
        ),
        Result(
            "sealed_bridge_cpu_per_token", median(each.figures["sealed"] for each in tokens), "us", _plain(tokens),
            note=f"at {USUAL:.0f} tokens a second, of which a chunk has several; baseline: plain",
        ),
        Result(
            "sealed_bridge_cpu_per_request", _added(requests), "ms", _plain(requests),
            note=f"added at the bridge for keys, proof and head; baseline: a plain request; {_spread(requests)}",
        ),
    ]  # fmt: skip


def _added(rounds: list[Round]) -> float:
    return median(each.added for each in rounds)


def _plain(rounds: list[Round]) -> float:
    return median(each.figures["plain"] for each in rounds)


def _spread(rounds: list[Round]) -> str:
    """Return between what the rounds vary: the figure is no more exact than that."""
    return f"rounds from {min(each.added for each in rounds):.3g} to {max(each.added for each in rounds):.3g}"


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
                async for data in response.aiter_raw():
                    began = _count(read, data, began)

        async def sealed(content: str, read: Read) -> None:
            began = time.monotonic()
            answer = await client.open("POST", CHAT, content=content.encode())
            if answer.status != 200:
                raise RuntimeError(f"expected 200, got {answer.status}")
            try:
                while data := await answer.some():
                    began = _count(read, data, began)
            finally:
                await answer.leave()

        yield {"plain": plain, "sealed": sealed}


def _count(read: Read, data: bytes, began: float) -> float:
    read.pieces += 1
    read.tokens += data.count(b"\n")  # a line each
    if began:
        read.firsts.append((time.monotonic() - began) * 1000)
    return 0.0


def _turns(ways: dict[str, Ask], number: int) -> list[tuple[str, Ask]]:
    """Return both ways, in each round in the other order: what drifts meanwhile does not always hit the same one."""
    order = list(ways.items())
    return order[::-1] if number % 2 else order


async def _requests(bench: Bench, ways: dict[str, Ask]) -> tuple[list[Round], list[Round]]:
    """Return milliseconds to the first content, and of the bridge's processor, of requests one after the other."""
    content = stamped(0, tokens=2)
    bridge = {"bridge": groups_of(bench.stack.processes())["bridge"]}
    for ask in ways.values():
        await ask(content, Read())
    firsts, spent = [], []
    for number in range(bench.rounds(ROUNDS)):
        first, cost = Round(), Round()
        for name, ask in _turns(ways, number):
            read, meter = Read(), CpuMeter(bridge)
            for _ in range(REQUESTS):
                await ask(content, read)
            cost.figures[name] = meter.seconds()["bridge"] / REQUESTS * 1e3
            first.figures[name] = percentile(read.firsts, 50)
        firsts.append(first)
        spent.append(cost)
    return firsts, spent


async def _streams(
    bench: Bench, ways: dict[str, Ask], pace: float, *, streams: int = STREAMS, a_chunk_each: bool
) -> list[Round]:
    """Return microseconds of the bridge's processor that a token takes, or a sealed chunk, once all streams run.

    Raises:
        RuntimeError: A stream broke off, or tokens came together that should not.
    """
    content, seconds = stamped(pace), bench.seconds(SECONDS)
    bridge = {"bridge": groups_of(bench.stack.processes())["bridge"]}
    rounds = []
    for number in range(bench.rounds(ROUNDS)):
        found = Round()
        for name, ask in _turns(ways, number):
            read = Read()
            tasks = []
            for _ in range(streams):
                tasks.append(asyncio.ensure_future(ask(content, read)))
                await asyncio.sleep(SPREAD / streams)
            await asyncio.sleep(RAMP)
            meter, before = CpuMeter(bridge), replace(read)
            await asyncio.sleep(seconds)
            spent = meter.seconds()["bridge"]
            tokens, pieces = read.tokens - before.tokens, read.pieces - before.pieces
            for task in tasks:
                task.cancel()
            if any(isinstance(end, Exception) for end in await asyncio.gather(*tasks, return_exceptions=True)):
                raise RuntimeError(f"expected {streams} streams without error")
            if a_chunk_each and name == "sealed":
                if tokens > pieces * MOST_IN_A_CHUNK:
                    raise RuntimeError(f"expected about a token in a chunk, got {tokens} in {pieces}; is it busy?")
                tokens = pieces
            found.figures[name] = spent / tokens * 1e6
        rounds.append(found)
    return rounds
