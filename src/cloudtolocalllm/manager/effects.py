"""Carries the reconciler's decisions out: starts, claims, retires and ends instances.

An action changes the table at once, so that the next decision sees it, and does its slow part in a task of its own:
starts run side by side and nobody waits for somebody else's. Actions on one instance never overlap: its phase says
what is under way.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.demands import Demands, UnavailableError
from cloudtolocalllm.manager.drivers.base import Driver, DriverUnavailableError, Found, InstanceSpec
from cloudtolocalllm.manager.monitor import Monitor
from cloudtolocalllm.manager.policy import Phase, PolicyConfig, Reason
from cloudtolocalllm.manager.table import Counters, Entry, Table
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

VERB_MARGIN = 10.0
"""Seconds that a stop may take beyond its grace."""
FORCED = frozenset({Reason.UNRESPONSIVE, Reason.START_TIMEOUT, Reason.START_FAILED, Reason.GONE, Reason.STRAY})
"""Ends that need no grace: there is nobody who could use it."""


class Effects:
    """What is done to instances, each in a task of the group that is set while the reconciler runs."""

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        policy: PolicyConfig,
        demands: Demands,
        lifecycle: Lifecycle,
        wake: Callable[[], None],
        *,
        stop_grace: float,
    ) -> None:
        """Make effects on an empty table.

        Args:
            driver: Makes and ends instances.
            clock: As the reconciler's.
            policy: Its periods.
            demands: Users who wait; they are told.
            lifecycle: Hears of each instance's life.
            wake: Has the reconciler decide again.
            stop_grace: Seconds that an instance has to finish its streams.
        """
        self._driver = driver
        self._clock = clock
        self._policy = policy
        self._demands = demands
        self._lifecycle = lifecycle
        self._wake = wake
        self._stop_grace = stop_grace
        self._spare_backoff = Backoff(first=0.5, maximum=15.0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.group: asyncio.TaskGroup | None = None
        """Owns the tasks; None while the reconciler does not run."""
        self.spares_after = 0.0
        """Monotonic seconds before which no spare is to be started."""
        self.table = Table()
        self.counters = Counters()

    def adopt(self, found: Found) -> None:
        """Take over an instance that an earlier manager made."""
        entry = Entry(found.spec, Phase.READY, self._clock.monotonic())
        entry.endpoint = found.endpoint
        self.table.add(entry)
        self.counters.adopted += 1
        entry.limited = None
        self._lifecycle.adopted(entry)
        log.info("instance adopted", extra={"id": entry.id})

    def start(self, spec: InstanceSpec) -> None:
        """Make an instance."""
        entry = Entry(spec, Phase.STARTING, self._clock.monotonic())
        self.table.add(entry)
        entry.task = self._begin(self._start(entry, spec))

    async def _start(self, entry: Entry, spec: InstanceSpec) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._policy.start_timeout):
                entry.endpoint = await self._driver.start(spec)
                recorded = spec.user
                while entry.user is not None and entry.user != recorded:  # claimed while it started
                    recorded = entry.user
                    await self._driver.assign(entry.id, recorded)
        except Exception as error:
            entry.task = None
            self._start_failed(entry, error)
            return
        entry.task = None
        if entry.phase is not Phase.STARTING:
            return
        now = self._clock.monotonic()
        entry.enter(Phase.READY, now)
        entry.active_at = now
        self.counters.started(now - began)
        self._spare_backoff.reset()
        self._lifecycle.made(entry)
        log.info(
            "instance ready", extra={"id": entry.id, "seconds": round(now - began, 4), "spare": entry.user is None}
        )
        self._settle(entry)

    def _start_failed(self, entry: Entry, error: Exception) -> None:
        self.counters.start_failures += 1
        log.warning("start failed", extra={"id": entry.id, "error": f"{type(error).__name__}: {error}"})
        # Spares can wait until the fault may have passed; users are served at once.
        self.spares_after = self._clock.monotonic() + self._spare_backoff.next()
        if entry.phase is Phase.STARTING:
            if entry.user is not None and isinstance(error, DriverUnavailableError):
                self._demands.refuse(entry.user, UnavailableError(str(error)))  # a second try would find the same
            elif entry.user is not None:
                self._demands.failed(entry.user)
            self.stop(entry, Reason.START_FAILED)

    def claim(self, entry: Entry, user: str) -> None:
        """Give a spare to a user."""
        self.counters.claimed += 1
        self.table.bind(entry, user)
        if entry.phase is Phase.READY:  # one that is starting is recorded by its start
            entry.binding = True
            self._begin(self._bind(entry, user))

    async def _bind(self, entry: Entry, user: str) -> None:
        try:
            async with asyncio.timeout(self._policy.start_timeout):
                await self._driver.assign(entry.id, user)
        except Exception as error:
            log.warning("claim failed", extra={"id": entry.id, "error": f"{type(error).__name__}: {error}"})
            self._demands.failed(user)
            entry.binding = False
            self.stop(entry, Reason.CLAIM_FAILED)
            return
        entry.binding = False
        entry.active_at = self._clock.monotonic()
        self._lifecycle.assigned(entry)
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Hand an instance that is ready and recorded to those who wait for it."""
        instance = entry.instance()
        if entry.user is not None and instance is not None and entry.phase is Phase.READY:
            self._demands.fulfil(entry.user, instance)
        self._wake()

    def retire(self, entry: Entry, monitor: Monitor) -> None:
        """End an instance that seems idle, unless it says otherwise."""
        entry.confirming = True
        self._begin(self._retire(entry, monitor))

    async def _retire(self, entry: Entry, monitor: Monitor) -> None:
        """Ask an idle instance once more, and stop it in the same breath if it still is idle."""
        asked = entry.active_at
        still_idle = await monitor.confirm_idle(entry, self._policy.idle_timeout)
        entry.confirming = False
        if entry.phase is Phase.READY and still_idle and entry.active_at == asked:
            self.counters.culled += 1
            self.stop(entry, Reason.IDLE)

    def stop(self, entry: Entry, reason: Reason) -> None:
        """End an instance; from now on it is nobody's."""
        if entry.phase is Phase.STOPPING:
            return
        if reason is Reason.UNRESPONSIVE:
            self.counters.unresponsive += 1
        log.info("instance ends", extra={"id": entry.id, "reason": reason.value})
        self._lifecycle.ends(entry, reason)
        entry.enter(Phase.STOPPING, self._clock.monotonic())
        self.table.release(entry)
        grace = 0.0 if reason in FORCED or entry.task is not None else self._stop_grace
        self._begin(self._end(entry, grace))
        self._wake()

    async def _end(self, entry: Entry, grace: float) -> None:
        if entry.task is not None:
            entry.task.cancel()
            await asyncio.wait([entry.task], timeout=VERB_MARGIN)
            entry.task = None
            if entry.user is not None:
                self._demands.failed(entry.user)
        backoff = Backoff(first=0.5, maximum=15.0)
        while True:
            try:
                async with asyncio.timeout(grace + VERB_MARGIN):
                    await self._driver.stop(entry.id, grace)
                break
            except Exception as error:
                log.warning("stop failed", extra={"id": entry.id, "error": f"{type(error).__name__}: {error}"})
            grace = 0.0
            await asyncio.sleep(backoff.next())
        self.table.remove(entry)
        self._wake()

    def gone(self, instance: str) -> None:
        """Note that an instance ended by itself."""
        entry = self.table.get(instance)
        if entry is not None and entry.phase is Phase.READY:
            self.counters.ended_by_themselves += 1
            entry.enter(Phase.GONE, self._clock.monotonic())
            self.table.release(entry)
            self._wake()

    def cancel(self) -> None:
        """Leave off what is still under way."""
        for task in list(self._tasks):
            task.cancel()

    def _begin(self, effect: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self.group is None:
            raise RuntimeError("expected the reconciler to run")
        task = self.group.create_task(effect)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
