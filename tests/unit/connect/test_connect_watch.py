"""When connections that say nothing are taken for broken."""

import asyncio
from collections.abc import Callable

import pytest

from cloudtolocalllm.connect.watch import ASLEEP, Watch
from cloudtolocalllm.runtime.tasks import TaskSet


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.at = 100.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + 1e9 + self.slept


class Answer:
    def __init__(self, clock: Clock, local: str = "10.0.0.1") -> None:
        self.local = local
        self.heard = clock.at
        self.broken = ""

    def break_off(self, why: str) -> None:
        self.broken = why


class Network:
    """What a probe finds, in order; then the last for ever."""

    def __init__(self, clock: Clock, *found: str | None) -> None:
        self.clock = clock
        self.found = list(found)
        self.timeouts: list[float] = []

    async def __call__(self, timeout: float) -> str | None:
        self.timeouts.append(timeout)
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def run(
    clock: Clock, network: Network, answer: Answer, ticks: int, each: Callable[[], None] | None = None
) -> Watch:
    """Let a watch look so many times, a second apart."""
    left = ticks
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            over.set()
            await asyncio.Event().wait()
        clock.at += 1.0
        if each is not None:
            each()

    tasks = TaskSet()
    watch = Watch(tasks, clock, sleep=sleep)
    watch.probe_by(network)
    end = watch.add(answer)
    async with asyncio.timeout(5):
        while not over.is_set() and len(tasks):  # noqa: ASYNC110 - which of two comes first
            await asyncio.sleep(0)
    end()
    await tasks.close()
    return watch


async def test_silence_alone_means_nothing(clock: Clock) -> None:
    network, answer = Network(clock, "10.0.0.1"), Answer(clock)
    await run(clock, network, answer, 60)
    assert answer.broken == ""
    assert 8 <= len(network.timeouts) <= 13  # some every five seconds


async def test_an_answer_that_goes_on_asks_nobody(clock: Clock) -> None:
    network, answer = Network(clock, None), Answer(clock)

    def speak() -> None:
        answer.heard = clock.at

    await run(clock, network, answer, 20, speak)
    assert network.timeouts == []
    assert answer.broken == ""


async def test_a_server_that_is_heard_again(clock: Clock) -> None:
    network, answer = Network(clock, None, None, None, "10.0.0.1"), Answer(clock)
    watch = await run(clock, network, answer, 60)
    assert "network" in answer.broken
    assert network.timeouts == [3.0, 1.0, 1.0, 1.0]
    assert not watch.down


async def test_an_answer_that_went_on_meanwhile_is_left_alone(clock: Clock) -> None:
    network, answer = Network(clock, None, "10.0.0.1"), Answer(clock)

    def speak() -> None:
        if len(network.timeouts) == 1:
            answer.heard = clock.at

    await run(clock, network, answer, 6, speak)
    assert answer.broken == ""


async def test_another_address(clock: Clock) -> None:
    answer = Answer(clock, "192.168.0.7")
    await run(clock, Network(clock, "10.0.0.1"), answer, 20)
    assert "another address" in answer.broken


@pytest.mark.parametrize("found", ["::1", ""])
async def test_another_kind_of_address_says_nothing(found: str, clock: Clock) -> None:
    answer = Answer(clock, "192.168.0.7")
    await run(clock, Network(clock, found), answer, 20)
    assert answer.broken == ""


async def test_a_computer_that_slept(clock: Clock) -> None:
    network, answer = Network(clock, "10.0.0.1"), Answer(clock)

    def sleep() -> None:
        answer.heard = clock.at
        clock.slept = ASLEEP + 1

    await run(clock, network, answer, 3, sleep)
    assert "asleep" in answer.broken


async def test_nothing_is_done_without_answers(clock: Clock) -> None:
    tasks = TaskSet()
    watch = Watch(tasks, clock)
    assert len(tasks) == 0
    watch.add(Answer(clock))()
    await asyncio.sleep(0)
    assert len(tasks) == 1  # it looks once more, and ends
    await tasks.close()
