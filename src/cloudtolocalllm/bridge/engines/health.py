"""Keeps an eye on the engines: a check of each every ten seconds, one at once after a failure."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from cloudtolocalllm.bridge.engines.engine import Engine
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

CHECK_INTERVAL = 10.0
"""Seconds between two checks of an engine."""
JITTER = 0.2
"""Share by which the interval varies, so that checks of many bridges and engines do not fall together."""
SOONEST = 0.5
"""Seconds between a check and one that a failure asked for, so that failing requests do not become a storm."""


class HealthWatch:
    """Checks engines until it is closed."""

    def __init__(self, *, interval: float | None = None) -> None:
        """Make a watch that checks nothing yet.

        Args:
            interval: Seconds between two checks of an engine; None for the usual.
        """
        self._interval = CHECK_INTERVAL if interval is None else interval
        self._tasks = TaskSet(limit=64)
        self._now: dict[str, asyncio.Event] = {}
        self._rng = random.SystemRandom()

    def add(self, engine: Engine) -> None:
        """Check this engine from now on; the first check was made by the caller."""
        wanted = self._now[engine.id] = asyncio.Event()
        self._tasks.start(self._watch(engine, wanted), f"health of {engine.id}")

    def every(self, seconds: float, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Do some work again and again."""
        self._tasks.start(self._repeat(seconds, work), name)

    def suspect(self, engine: Engine) -> None:
        """Check this engine at once: a request has just failed."""
        if (wanted := self._now.get(engine.id)) is not None:
            wanted.set()

    async def close(self) -> None:
        """Check no more."""
        await self._tasks.close()

    async def _watch(self, engine: Engine, wanted: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)):
                    await wanted.wait()
            except TimeoutError:
                pass
            wanted.clear()
            await engine.check()
            await asyncio.sleep(min(SOONEST, self._interval))

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds * self._rng.uniform(1 - JITTER, 1 + JITTER))
            await work()
