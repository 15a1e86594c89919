"""Looks at every instance again and again: is it there, and is it in use?"""

import asyncio
import logging
import random
from collections.abc import Callable

from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.policy import Phase
from cloudtolocalllm.manager.probe import Probe, ProbeError
from cloudtolocalllm.manager.table import Entry, Table
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Instances asked at the same time."""
CHECK_TIMEOUT = 2.0
"""Seconds in which an instance must answer: its loop never blocks that long unless the machine is overloaded."""
FRESH_TIMEOUT = 1.0
"""As CHECK_TIMEOUT, for a caller who waits."""


class Monitor:
    """Keeps the table's measurements fresh."""

    def __init__(
        self,
        table: Table,
        probe: Probe,
        clock: Clock,
        interval: float,
        on_change: Callable[[], None],
        lifecycle: Lifecycle,
    ) -> None:
        """Make a monitor.

        Args:
            table: Whose instances are looked at.
            probe: How they are asked.
            clock: As the reconciler's.
            interval: Seconds between two looks at one instance.
            on_change: Called when an instance did not answer.
            lifecycle: Hears of limits that were hit.
        """
        self._table = table
        self._probe = probe
        self._clock = clock
        self._interval = interval
        self._on_change = on_change
        self._lifecycle = lifecycle
        self._jitter = random.SystemRandom()

    async def run(self) -> None:
        """Look at everything, once an interval, for ever."""
        while True:
            # Jittered, so that it does not beat in time with whatever else happens every ten seconds.
            await asyncio.sleep(self._jitter.uniform(0.8, 1.2) * self._interval)
            await self.sweep()

    async def sweep(self) -> None:
        """Look at every instance that is ready, AT_ONCE at a time."""
        waiting = [entry for entry in self._table if entry.phase is Phase.READY]

        async def worker() -> None:
            while waiting:
                await self.check(waiting.pop(), CHECK_TIMEOUT)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(waiting))):
                group.create_task(worker())

    async def check(self, entry: Entry, timeout: float) -> bool:
        """Look at one instance and note what was seen; return whether it answered."""
        if entry.endpoint is None or entry.phase is not Phase.READY:
            return False
        try:
            async with asyncio.timeout(timeout + 1.0):
                stats = await self._probe.stats(entry.endpoint, entry.key, timeout=timeout)
        except Exception as error:
            # Whatever it is, it is this instance's: the others are looked at all the same.
            entry.failed_checks += 1
            extra = {"id": entry.id, "failed": entry.failed_checks, "error": str(error)}
            log.warning("no answer", extra=extra, exc_info=not isinstance(error, ProbeError | TimeoutError))
            self._on_change()
            return False
        now = self._clock.monotonic()
        idle = max(0.0, self._clock.wall() - stats.last_activity)
        entry.failed_checks = 0
        entry.in_flight = stats.in_flight
        entry.bridges = stats.bridges
        if entry.limited is not None:
            self._lifecycle.limited(entry, stats.limited - entry.limited[0], stats.limited_keys - entry.limited[1])
        entry.limited = (stats.limited, stats.limited_keys)
        # A stream in flight is activity, also while the engine is silent.
        entry.active_at = now if stats.in_flight else max(entry.active_at, now - idle)
        entry.measured_at = now
        return True

    async def disconnect(self, user: str, bridge: str) -> list[Entry]:
        """Have every instance of a user cut a bridge's tunnels; return those that did not.

        One that ends keeps its tunnels for its grace time, so it is asked too.
        """
        entries = [entry for entry in self._table if entry.user == user and entry.endpoint is not None]
        done = await asyncio.gather(*(self._cut(entry, bridge) for entry in entries))
        return [entry for entry, cut in zip(entries, done, strict=True) if not cut]

    async def _cut(self, entry: Entry, bridge: str) -> bool:
        assert entry.endpoint is not None  # noqa: S101 - chosen so; narrows the type
        try:
            await self._probe.disconnect(entry.endpoint, entry.key, bridge, timeout=FRESH_TIMEOUT)
        except ProbeError as error:
            log.warning("a revoked bridge was not cut", extra={"id": entry.id, "error": str(error)})
            return False
        return True

    async def answers(self, entry: Entry) -> bool:
        """Return whether an instance answers a caller who waits."""
        return await self.check(entry, FRESH_TIMEOUT)

    async def confirm_idle(self, entry: Entry, idle_timeout: float) -> bool:
        """Ask an instance that seems idle, and return whether it has been for `idle_timeout` seconds until now."""
        if not await self.check(entry, CHECK_TIMEOUT):
            return False
        return entry.in_flight == 0 and self._clock.monotonic() - entry.active_at >= idle_timeout
