"""The bridge's network delays, throttles, splits and half loses what passes: the answers are the engine's own."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from tests.support.engines import EngineProcess
from tests.support.fault_proxy import Direction, FaultProxy
from tests.support.long_answer import ask
from tests.support.second_bridge import second_bridge
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(60)
TOKENS = 300
PACE = 150.0
"""Tokens a second: an answer takes two seconds, so that things can happen to it."""


@pytest.fixture(scope="module")
def stack(paced: EngineProcess) -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="c2l-test-") as folder,
        running_stack(Path(folder) / "data", engines=[paced.url]) as made,
    ):
        yield made


@pytest.fixture
async def expected(paced: EngineProcess) -> str:
    return await ask(paced.url, {}, TOKENS, 0)


@pytest.fixture
async def fault(stack: Stack, paced: EngineProcess) -> AsyncIterator[FaultProxy]:
    """The network between the edge and the bridge that serves; the test leaves it whole."""
    async with FaultProxy("127.0.0.1", stack.port) as made, second_bridge(stack, paced, made):
        await ask(f"{stack.url}/ollama", stack.headers, 1, 0)  # the tunnel is up
        before = made.up.passed
        await ask(f"{stack.url}/ollama", stack.headers, 20, 0)
        assert made.up.passed > before + 500, "expected the answer to come through the fault proxy"
        yield made
        for way in (made.up, made.down):
            heal(way)
        made.release()


def heal(way: Direction) -> None:
    way.latency = way.jitter = way.bytes_per_second = way.merge = 0.0
    way.segment = 0
    way.stalled = way.blackhole = False


async def answers(stack: Stack, count: int = 3, pace: float = PACE, prompt: str = "go") -> list[str]:
    """Ask several times at once."""
    url = f"{stack.url}/ollama"
    return await asyncio.gather(*(ask(url, stack.headers, TOKENS, pace, prompt=prompt) for _ in range(count)))


@contextlib.asynccontextmanager
async def under_way(stack: Stack) -> AsyncIterator["asyncio.Task[list[str]]"]:
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(answers(stack))


async def test_latency_and_jitter(stack: Stack, fault: FaultProxy, expected: str) -> None:
    for way in (fault.up, fault.down):
        way.latency, way.jitter = 0.03, 0.08
    assert await answers(stack) == [expected] * 3


async def test_throttled(stack: Stack, fault: FaultProxy, expected: str) -> None:
    fault.up.bytes_per_second = fault.down.bytes_per_second = 60_000
    assert await answers(stack, 2, pace=0) == [expected] * 2


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_in_segments_of_a_few_bytes(stack: Stack, fault: FaultProxy, expected: str, size: int) -> None:
    fault.up.segment = fault.down.segment = size
    assert await answers(stack, 1, pace=0) == [expected]


async def test_gathered_into_large_pieces(stack: Stack, fault: FaultProxy, expected: str) -> None:
    fault.up.merge = fault.down.merge = 0.2
    assert await answers(stack) == [expected] * 3


async def test_a_long_question_in_small_pieces(stack: Stack, fault: FaultProxy, paced: EngineProcess) -> None:
    prompt = " ".join(str(number) for number in range(8000))
    direct = await ask(paced.url, {}, TOKENS, 0, prompt=prompt)
    fault.down.segment, fault.up.jitter = 7, 0.02
    assert await answers(stack, 1, pace=0, prompt=prompt) == [direct]


@pytest.mark.parametrize("ways", ["up", "both"])
async def test_a_stall_of_three_seconds(stack: Stack, fault: FaultProxy, expected: str, ways: str) -> None:
    stalled = [fault.up] if ways == "up" else [fault.up, fault.down]
    accepted = fault.accepted
    async with under_way(stack) as answer:
        await asyncio.sleep(0.7)
        for way in stalled:
            way.stalled = True
        await asyncio.sleep(3.0)
        for way in stalled:
            way.stalled = False
    assert answer.result() == [expected] * 3
    assert fault.accepted == accepted, "three seconds are no reason to dial again"


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_half_dead_connections_with_late_bytes(
    stack: Stack, fault: FaultProxy, expected: str, how: Literal["rst", "fin"]
) -> None:
    """The bridge loses its connection, the edge does not notice: what was on its way comes after the new one."""
    fault.up.latency, fault.up.jitter = 0.15, 0.1
    cuts = 0
    async with under_way(stack) as answer:
        for _ in range(4):
            await asyncio.sleep(0.5)
            cuts += fault.cut(how, side="client")
    assert cuts >= 4
    assert answer.result() == [expected] * 3


async def test_everything_at_once(stack: Stack, fault: FaultProxy, expected: str) -> None:
    async with under_way(stack) as answer:
        for number in range(6):
            await asyncio.sleep(0.3)
            for way in (fault.up, fault.down):
                way.latency, way.jitter, way.segment = 0.02 * number, 0.05, (0, 3, 1400)[number % 3]
            if number % 2:
                fault.cut("rst", side="client" if number % 4 == 1 else "both")
        for way in (fault.up, fault.down):
            heal(way)
    assert answer.result() == [expected] * 3
