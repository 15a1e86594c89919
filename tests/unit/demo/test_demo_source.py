"""The recital against a loop whose time the test moves."""

import asyncio
import heapq
from collections.abc import Callable
from typing import cast

from cloudtolocalllm.demo.request import Generate
from cloudtolocalllm.demo.script import ToolCall
from cloudtolocalllm.demo.settings import Pace
from cloudtolocalllm.demo.source import BURST, Generation, _Recital


class Handle:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """As much of an event loop as a recital uses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, int, Handle]] = []
        self.serial = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> Handle:
        return self.call_at(self.now, call)

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        handle = Handle(call)
        self.serial += 1
        heapq.heappush(self.due, (when, self.serial, handle))
        return handle

    @property
    def armed(self) -> int:
        return sum(1 for _, _, handle in self.due if handle.call)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            when, _, handle = heapq.heappop(self.due)
            self.now = max(self.now, when)
            if handle.call:
                handle.call()
        self.now = end


class Sink:
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.done = ""
        self.generation: Generation | None = None
        self.pause_at = -1

    def on_thinking(self, text: str) -> None:
        raise AssertionError("not asked for")

    def on_tool_call(self, call: ToolCall) -> None:
        raise AssertionError("not asked for")

    def on_token(self, text: str) -> None:
        self.tokens.append(text)
        if len(self.tokens) == self.pause_at and self.generation:
            self.generation.pause()

    def on_done(self, reason: str) -> None:
        assert not self.done
        self.done = reason

    def on_failed(self, message: str) -> None:
        raise AssertionError(message)


def recite(tokens: int, pace: float, limit: int | None = None) -> tuple[Loop, Sink, Generation]:
    loop, sink = Loop(), Sink()
    request = Generate("demo", "hi", Pace(tokens=tokens, tokens_per_second=pace), max_tokens=limit)
    sink.generation = _Recital(request, sink, cast("asyncio.AbstractEventLoop", loop))
    return loop, sink, sink.generation


def test_tokens_come_at_their_pace_and_then_the_end() -> None:
    loop, sink, _ = recite(tokens=10, pace=10)
    loop.run(0.55)
    assert len(sink.tokens) == 6
    loop.run(0.55)
    assert (len(sink.tokens), sink.done, loop.armed) == (10, "stop", 0)


def test_a_late_loop_makes_up_for_what_was_due() -> None:
    loop, sink, _ = recite(tokens=100, pace=10)
    loop.run(0)
    loop.now += 1.0
    loop.run(0)
    assert len(sink.tokens) == 11


def test_full_speed_leaves_the_loop_to_others_between_bursts() -> None:
    loop, sink, _ = recite(tokens=10 * BURST, pace=0)
    _, _, handle = heapq.heappop(loop.due)
    assert handle.call
    handle.call()
    assert len(sink.tokens) == BURST
    loop.run(0)
    assert sink.done == "stop"


def test_pausing_inside_a_token_leaves_no_second_timer_behind() -> None:
    loop, sink, generation = recite(tokens=100, pace=10)
    sink.pause_at = 3
    loop.run(5)
    assert (len(sink.tokens), loop.armed) == (3, 0)
    generation.resume()
    generation.resume()
    assert loop.armed == 1
    loop.run(0.35)
    assert (len(sink.tokens), loop.armed) == (7, 1)


def test_nothing_comes_after_cancelling() -> None:
    loop, sink, generation = recite(tokens=100, pace=10)
    loop.run(0.35)
    generation.cancel()
    generation.resume()
    loop.run(10)
    assert (len(sink.tokens), loop.armed) == (4, 0)


def test_the_limit_of_tokens_ends_the_answer() -> None:
    loop, sink, _ = recite(tokens=100, pace=0, limit=5)
    loop.run(0)
    assert (len(sink.tokens), sink.done) == (5, "length")
