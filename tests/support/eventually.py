"""Waiting for what comes about by itself, and no longer than it may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.03


async def eventually(ask: Callable[[], Awaitable[T]], wanted: Callable[[T], object], *, within: float = 20.0) -> T:
    """Ask until the answer is as wanted, and return it.

    Args:
        ask: A coroutine function.
        wanted: Tells of an answer whether it is.
        within: Seconds; what takes longer fails the test, which is shown the last answer.
    """
    deadline = time.monotonic() + within
    while True:
        answer = await ask()
        if wanted(answer):
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"expected it within {within:g} s, got {answer!r}")
        await asyncio.sleep(PAUSE)
