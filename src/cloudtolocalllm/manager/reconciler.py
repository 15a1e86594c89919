"""Makes things as the policy wants them: runs `decide` again and again and carries its actions out.

`decide` runs at every tick and whenever something happened, all within the event loop's thread. An action changes the
table at once, so that the next decision sees it, and does its slow part in a task of its own: starts run side by side
and nobody waits for somebody else's. Actions on one instance never overlap: its phase says what is under way.
"""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import Any

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.contracts.instances import Instance
from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.demands import CapacityError, Demands, StartFailedError, UnavailableError
from cloudtolocalllm.manager.drivers.base import Driver, DriverUnavailableError, Found, InstanceSpec
from cloudtolocalllm.manager.monitor import Monitor
from cloudtolocalllm.manager.policy import Action, Claim, Desired, Phase, PolicyConfig, Reason, Refuse, Start, decide
from cloudtolocalllm.manager.probe import Probe
from cloudtolocalllm.manager.table import Counters, Entry, Table
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between decisions when nothing happens: by how much a period may be overstepped."""
AUDIT_INTERVAL = 30.0
"""Seconds between two comparisons of the table with what the driver has."""
VERB_MARGIN = 10.0
"""Seconds that a stop may take beyond its grace."""
FORCED = frozenset({Reason.UNRESPONSIVE, Reason.START_TIMEOUT, Reason.START_FAILED, Reason.GONE, Reason.STRAY})
"""Ends that need no grace: there is nobody who could use it."""


class Reconciler:
    """Owns the table, the demands and every effect."""

    def __init__(
        self,
        driver: Driver,
        probe: Probe,
        clock: Clock,
        policy: PolicyConfig,
        *,
        stop_grace: float = 5.0,
        poll_interval: float = 10.0,
        stop_on_exit: bool = True,
        lifecycle: Lifecycle | None = None,
    ) -> None:
        """Make a reconciler that does nothing before `run`.

        Args:
            driver: Makes and ends instances.
            probe: Asks them how they are.
            clock: Monotonic time for the policy, wall time for records.
            policy: What the policy goes by.
            stop_grace: Seconds that an instance has to finish its streams.
            poll_interval: Seconds between two looks at an instance.
            stop_on_exit: Whether the instances end with `run`.
            lifecycle: Hears of each instance's life; None for nobody.
        """
        self._driver = driver
        self._clock = clock
        self._lifecycle = lifecycle or Lifecycle(Auditor(None, service="manager", clock=clock))
        self._policy = policy
        self._stop_grace = stop_grace
        self._stop_on_exit = stop_on_exit
        self._demands = Demands(policy.max_instances)
        self._wake = asyncio.Event()
        self._draining = False
        self._spare_backoff = Backoff(first=0.5, maximum=15.0)
        self._spares_after = 0.0
        self._group: asyncio.TaskGroup | None = None
        self._effects: set[asyncio.Task[None]] = set()
        self.table = Table()
        self.counters = Counters()
        self._monitor = Monitor(self.table, probe, clock, poll_interval, self.wake, self._lifecycle)

    @property
    def ready(self) -> bool:
        """Whether instances can be had now."""
        return self._group is not None and not self._draining and self._driver.ready

    @property
    def waiting(self) -> int:
        """Users who wait for an instance."""
        return len(self._demands)

    @property
    def max_instances(self) -> int:
        """Instances at most."""
        return self._policy.max_instances

    async def run(self, stop: asyncio.Event) -> None:
        """Adopt what is there, keep things right until `stop` is set, then drain, if so told, and close the driver.

        Raises:
            DriverError: The driver cannot take up its work.
        """
        for found in await self._driver.open(self._on_gone):
            self._adopt(found)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                helpers = [group.create_task(self._monitor.run()), group.create_task(self._audit())]
                await self._loop(stop)
                for helper in helpers:
                    helper.cancel()
                await self._finish()
        finally:
            self._group = None
            self._demands.refuse_all(StartFailedError("the manager ends"))
            await self._driver.close()

    def wake(self) -> None:
        """Decide again now rather than at the next tick."""
        self._wake.set()

    async def sweep(self) -> None:
        """Look at every instance now rather than at the next interval."""
        await self._monitor.sweep()

    async def ensure(self, user: str, *, check: bool = False) -> Instance:
        """Return the user's ready instance; callers who ask at the same time share one start.

        Args:
            user: Whose.
            check: Whether to ask the instance first and replace it if it does not answer: for those it refused.

        Raises:
            CapacityError: All places are taken.
            StartFailedError: It could not be started, or not in time.
        """
        if user not in self._demands:
            ready = self.get(user)
            if ready is not None and check and (entry := self.table.get(ready.id)) is not None:
                if not await self._monitor.answers(entry) and entry.phase is Phase.READY:
                    self._stop(entry, Reason.UNRESPONSIVE)
                ready = self.get(user)
            if ready is not None:
                self._touch(user)
                return ready
        if self._group is None or self._draining:
            raise StartFailedError("the manager does not run")
        demand = self._demands.join(user)
        self._wake.set()
        deadline = self._policy.start_timeout * 2 + VERB_MARGIN
        try:
            # Shielded: a caller who goes away must not take the others' instance with it.
            return await asyncio.wait_for(asyncio.shield(demand.future), deadline)
        except TimeoutError:
            raise StartFailedError(f"not ready within {deadline:.0f} s") from None

    def get(self, user: str) -> Instance | None:
        """Return the user's instance if it is ready."""
        entry = self.table.of_user(user)
        if entry is None or entry.phase is not Phase.READY or entry.binding:
            return None
        return entry.instance()

    async def remove(self, user: str) -> bool:
        """End the user's instance and wait until nothing of it is left; return whether there was one.

        Raises:
            TimeoutError: Something of it is left, and is still being removed.
        """
        entry = self.table.of_user(user)
        if entry is None or self._group is None:
            return False
        self._stop(entry, Reason.REMOVED)
        await asyncio.wait_for(entry.removed.wait(), self._stop_grace + VERB_MARGIN)
        return True

    async def disconnect(self, user: str, bridge: str) -> None:
        """Cut a revoked bridge's tunnels to all that is the user's; an instance that does not do it is ended."""
        for entry in await self._monitor.disconnect(user, bridge):
            self._stop(entry, Reason.UNRESPONSIVE)

    def _touch(self, user: str) -> None:
        """Note that a user's instance was asked for: it will be used at once."""
        entry = self.table.of_user(user)
        if entry is not None:
            entry.active_at = self._clock.monotonic()

    # -- the loop

    async def _loop(self, stop: asyncio.Event) -> None:
        group = self._running()
        stopper = group.create_task(self._wake_at(stop))
        try:
            while not stop.is_set():
                self._wake.clear()
                self._step()
                try:
                    async with asyncio.timeout(TICK):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            stopper.cancel()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _finish(self) -> None:
        """Leave: end every instance if told to, otherwise only what is half made or half gone."""
        self._draining = True
        self._demands.refuse_all(StartFailedError("the manager ends"))
        leaving = [e for e in self.table if self._stop_on_exit or e.phase is not Phase.READY]
        for entry in leaving:
            self._stop(entry, Reason.DRAIN)
        try:
            async with asyncio.timeout(self._stop_grace + VERB_MARGIN):
                for entry in leaving:
                    await entry.removed.wait()
        except TimeoutError:
            left = [entry.id for entry in leaving if not entry.removed.is_set()]
            log.error("instances could not be ended", extra={"ids": left})  # noqa: TRY400 - the list is what matters
        for effect in list(self._effects):
            effect.cancel()

    def _step(self) -> None:
        now = self._clock.monotonic()
        desired = Desired(self._demands.users(), self._spares_after, self._draining)
        for action in decide(desired, [entry.observed() for entry in self.table], now, self._policy):
            self._apply(action, now)

    def _apply(self, action: Action, now: float) -> None:
        if isinstance(action, Start):
            spec = InstanceSpec(
                "px-" + secrets.token_hex(8), action.user, secrets.token_hex(32), round(self._clock.wall(), 3)
            )
            entry = Entry(spec, Phase.STARTING, now)
            self.table.add(entry)
            entry.task = self._begin(self._start(entry, spec))
        elif isinstance(action, Refuse):
            self.counters.refused += 1
            self._demands.refuse(action.user, CapacityError(action.retry_after))
        elif (known := self.table.get(action.id)) is None:
            return
        elif isinstance(action, Claim):
            self._claim(known, action.user)
        elif action.reason is Reason.IDLE:
            known.confirming = True
            self._begin(self._retire(known))
        else:
            self._stop(known, action.reason)

    # -- effects

    def _adopt(self, found: Found) -> None:
        entry = Entry(found.spec, Phase.READY, self._clock.monotonic())
        entry.endpoint = found.endpoint
        self.table.add(entry)
        self.counters.adopted += 1
        entry.limited = None
        self._lifecycle.adopted(entry)
        log.info("instance adopted", extra={"id": entry.id})

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
        self._spares_after = self._clock.monotonic() + self._spare_backoff.next()
        if entry.phase is Phase.STARTING:
            if entry.user is not None and isinstance(error, DriverUnavailableError):
                self._demands.refuse(entry.user, UnavailableError(str(error)))  # a second try would find the same
            elif entry.user is not None:
                self._demands.failed(entry.user)
            self._stop(entry, Reason.START_FAILED)

    def _claim(self, entry: Entry, user: str) -> None:
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
            self._stop(entry, Reason.CLAIM_FAILED)
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
        self._wake.set()

    async def _retire(self, entry: Entry) -> None:
        """Ask an idle instance once more, and stop it in the same breath if it still is idle."""
        asked = entry.active_at
        still_idle = await self._monitor.confirm_idle(entry, self._policy.idle_timeout)
        entry.confirming = False
        if entry.phase is Phase.READY and still_idle and entry.active_at == asked:
            self.counters.culled += 1
            self._stop(entry, Reason.IDLE)

    def _stop(self, entry: Entry, reason: Reason) -> None:
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
        self._wake.set()

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
        self._wake.set()

    # -- what happens by itself

    def _on_gone(self, instance: str) -> None:
        entry = self.table.get(instance)
        if entry is not None and entry.phase is Phase.READY:
            self.counters.ended_by_themselves += 1
            entry.enter(Phase.GONE, self._clock.monotonic())
            self.table.release(entry)
            self._wake.set()

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_INTERVAL)
            try:
                await self.audit()
            except Exception:
                log.exception("the driver's list cannot be had")

    async def audit(self) -> None:
        """Compare the table with what the driver has: note strays, and what is gone without a word."""
        before = self._clock.monotonic()
        async with asyncio.timeout(AUDIT_INTERVAL):
            there = await self._driver.list()
        for instance in there:
            if instance not in self.table:
                spec = InstanceSpec(instance, None, "", 0.0)
                self.table.add(Entry(spec, Phase.STRAY, self._clock.monotonic()))
        for entry in self.table:
            # One that became ready after the list was taken may be missing from it.
            if entry.phase is Phase.READY and entry.since < before and entry.id not in there:
                self._on_gone(entry.id)
        self._renew_spares()
        self._wake.set()

    def _renew_spares(self) -> None:
        """End spares that are out of date; a user's proxy is renewed when it is next idle, since then it ends."""
        outdated = self._driver.outdated()
        for entry in self.table:
            if entry.id in outdated and entry.user is None and entry.phase is Phase.READY:
                self._stop(entry, Reason.SURPLUS)

    def _begin(self, effect: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._running().create_task(effect)
        self._effects.add(task)
        task.add_done_callback(self._effects.discard)
        return task

    def _running(self) -> asyncio.TaskGroup:
        if self._group is None:
            raise RuntimeError("expected the reconciler to run")
        return self._group
