"""Makes things as the policy wants them: runs `decide` again and again and has its actions carried out.

`decide` runs at every tick and whenever something happened, all within the event loop's thread; what it wants is done
by `Effects`, which changes the table at once and takes its time beside the loop.
"""

import asyncio
import logging
import secrets

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.contracts.instances import Instance
from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.demands import CapacityError, Demands, LeavingError, StartFailedError
from cloudtolocalllm.manager.drivers.base import Driver, InstanceSpec
from cloudtolocalllm.manager.effects import VERB_MARGIN, Effects
from cloudtolocalllm.manager.monitor import Monitor
from cloudtolocalllm.manager.policy import Action, Claim, Desired, Phase, PolicyConfig, Reason, Refuse, Start, decide
from cloudtolocalllm.manager.probe import Probe
from cloudtolocalllm.manager.table import Counters, Entry, Table
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between decisions when nothing happens: by how much a period may be overstepped."""
AUDIT_INTERVAL = 30.0
"""Seconds between two comparisons of the table with what the driver has."""


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
        lifecycle = lifecycle or Lifecycle(Auditor(None, service="manager", clock=clock))
        self._policy = policy
        self._stop_grace = stop_grace
        self._stop_on_exit = stop_on_exit
        self._demands = Demands(policy.max_instances)
        self._wake = asyncio.Event()
        self._draining = False
        self._opened = False
        self._effects = Effects(driver, clock, policy, self._demands, lifecycle, self.wake, stop_grace=stop_grace)
        self._monitor = Monitor(self.table, probe, clock, poll_interval, self.wake, lifecycle)

    @property
    def table(self) -> Table:
        """All instances."""
        return self._effects.table

    @property
    def counters(self) -> Counters:
        """What happened."""
        return self._effects.counters

    @property
    def ready(self) -> bool:
        """Whether instances can be had now."""
        return self._runs and self._driver.ready

    @property
    def _runs(self) -> bool:
        return self._effects.group is not None and not self._draining

    @property
    def waiting(self) -> int:
        """Users who wait for an instance."""
        return len(self._demands)

    @property
    def max_instances(self) -> int:
        """Instances at most."""
        return self._policy.max_instances

    async def open(self) -> None:
        """Take up the work: adopt what is there. `run` must follow, or `close`.

        Raises:
            DriverError: The driver cannot take up its work.
        """
        for found in await self._driver.open(self._effects.gone):
            self._effects.adopt(found)
        self._opened = True

    async def close(self) -> None:
        """Let go of what `open` took, where `run` does not follow. Idempotent."""
        await self._driver.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep things right until `stop` is set, then drain, if so told, and close the driver.

        Raises:
            DriverError: `open` was not called before, and the driver cannot take up its work.
        """
        if not self._opened:
            await self.open()
        try:
            async with asyncio.TaskGroup() as group:
                self._effects.group = group
                helpers = [group.create_task(self._monitor.run()), group.create_task(self._audit())]
                await self._loop(group, stop)
                for helper in helpers:
                    helper.cancel()
                await self._finish()
        finally:
            self._effects.group = None
            self._demands.refuse_all(LeavingError())
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
            LeavingError: This manager ends.
            StartFailedError: It could not be started, or not in time.
        """
        if user not in self._demands:
            ready = self.get(user)
            if ready is not None and check and (entry := self.table.get(ready.id)) is not None:
                if not await self._monitor.answers(entry) and entry.phase is Phase.READY:
                    self._effects.stop(entry, Reason.UNRESPONSIVE)
                ready = self.get(user)
            if ready is not None:
                self._touch(user)
                return ready
        if not self._runs:
            raise LeavingError
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
        if entry is None or self._effects.group is None:
            return False
        self._effects.stop(entry, Reason.REMOVED)
        await asyncio.wait_for(entry.removed.wait(), self._stop_grace + VERB_MARGIN)
        return True

    async def disconnect(self, user: str, bridge: str) -> None:
        """Cut a revoked bridge's tunnels to all that is the user's; an instance that does not do it is ended."""
        for entry in await self._monitor.disconnect(user, bridge):
            self._effects.stop(entry, Reason.UNRESPONSIVE)

    def _touch(self, user: str) -> None:
        """Note that a user's instance was asked for: it will be used at once."""
        entry = self.table.of_user(user)
        if entry is not None:
            entry.active_at = self._clock.monotonic()

    # -- the loop

    async def _loop(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
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
        self._demands.refuse_all(LeavingError())
        leaving = [e for e in self.table if self._stop_on_exit or e.phase is not Phase.READY]
        for entry in leaving:
            self._effects.stop(entry, Reason.DRAIN)
        try:
            async with asyncio.timeout(self._stop_grace + VERB_MARGIN):
                for entry in leaving:
                    await entry.removed.wait()
        except TimeoutError:
            left = [entry.id for entry in leaving if not entry.removed.is_set()]
            log.error("instances could not be ended", extra={"ids": left})  # noqa: TRY400 - the list is what matters
        self._effects.cancel()

    def _step(self) -> None:
        now = self._clock.monotonic()
        desired = Desired(self._demands.users(), self._effects.spares_after, self._draining)
        for action in decide(desired, [entry.observed() for entry in self.table], now, self._policy):
            self._apply(action)

    def _apply(self, action: Action) -> None:
        if isinstance(action, Start):
            created = round(self._clock.wall(), 3)
            spec = InstanceSpec("px-" + secrets.token_hex(8), action.user, secrets.token_hex(32), created)
            self._effects.start(spec)
        elif isinstance(action, Refuse):
            self.counters.refused += 1
            self._demands.refuse(action.user, CapacityError(action.retry_after))
        elif (known := self.table.get(action.id)) is None:
            return
        elif isinstance(action, Claim):
            self._effects.claim(known, action.user)
        elif action.reason is Reason.IDLE:
            self._effects.retire(known, self._monitor)
        else:
            self._effects.stop(known, action.reason)

    # -- what happens by itself

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
                self._effects.gone(entry.id)
        self._renew_spares()
        self._wake.set()

    def _renew_spares(self) -> None:
        """End spares that are out of date; a user's proxy is renewed when it is next idle, since then it ends."""
        outdated = self._driver.outdated()
        for entry in self.table:
            if entry.id in outdated and entry.user is None and entry.phase is Phase.READY:
                self._effects.stop(entry, Reason.SURPLUS)
