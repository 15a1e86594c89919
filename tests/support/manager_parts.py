"""A whole driver and probe in memory whose faults a test sets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.support.fake_clock import FakeClock

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import DriverError, Found, GoneCallback, InstanceSpec
from cloudtolocalllm.manager.policy import PolicyConfig
from cloudtolocalllm.manager.probe import ProbeError, ProxyStats
from cloudtolocalllm.manager.reconciler import Reconciler


@dataclass
class Running:
    """One instance of the double."""

    spec: InstanceSpec
    user: str | None
    in_flight: int = 0
    last_activity: float = 0.0
    answers: bool = True


@dataclass
class MemoryDriver:
    """Keeps the promises of Driver, unless told to break them."""

    running: dict[str, Running] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    started: list[InstanceSpec] = field(default_factory=list)
    stopped: list[tuple[str, float]] = field(default_factory=list)
    fail_starts: int = 0
    fail_stops: int = 0
    fail_assigns: int = 0
    hang_for: set[str | None] = field(default_factory=set)
    """Users whose starts never end."""
    gate: asyncio.Event | None = None
    """Starts wait for it."""
    closed: bool = False
    old: set[str] = field(default_factory=set)
    """Instances that are out of date."""
    ready: bool = True
    most_at_once: int = 0
    _starting: int = 0
    _on_gone: GoneCallback = lambda _: None

    async def open(self, on_gone: GoneCallback) -> list[Found]:
        self._on_gone = on_gone
        for found in self.found:
            self.running[found.spec.id] = Running(found.spec, found.spec.user)
        return self.found

    async def start(self, spec: InstanceSpec) -> Endpoint:
        assert spec.id not in self.running
        self.started.append(spec)
        self._starting += 1
        self.most_at_once = max(self.most_at_once, self._starting)
        try:
            if self.fail_starts:
                self.fail_starts -= 1
                raise DriverError("told to fail")
            if spec.user in self.hang_for:
                await asyncio.Event().wait()
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self._starting -= 1
        self.running[spec.id] = Running(spec, spec.user)
        return Endpoint(path=f"/run/{spec.id}")

    async def assign(self, instance: str, user: str) -> None:
        await asyncio.sleep(0)
        if self.fail_assigns:
            self.fail_assigns -= 1
            raise DriverError("told to fail")
        self.running[instance].user = user

    async def stop(self, instance: str, grace: float) -> None:
        self.stopped.append((instance, grace))
        if self.fail_stops:
            self.fail_stops -= 1
            raise DriverError("told to fail")
        self.running.pop(instance, None)
        await asyncio.sleep(0)

    async def list(self) -> set[str]:
        return set(self.running)

    def outdated(self) -> set[str]:
        return self.old

    async def close(self) -> None:
        self.closed = True

    def die(self, instance: str) -> None:
        """An instance ends by itself."""
        del self.running[instance]
        self._on_gone(instance)

    def of(self, user: str) -> Running:
        """The one instance of a user."""
        (one,) = [one for one in self.running.values() if one.user == user]
        return one


@dataclass
class MemoryProbe:
    """Asks the double."""

    driver: MemoryDriver
    asked: int = 0
    cut: list[tuple[str | None, str]] = field(default_factory=list)
    """Whose instance was told to cut which bridge."""
    on_ask: Callable[[], None] | None = None

    async def healthy(self, endpoint: Endpoint, key: str, *, timeout: float) -> bool:
        raise NotImplementedError

    async def stats(self, endpoint: Endpoint, key: str, *, timeout: float) -> ProxyStats:
        self.asked += 1
        if self.on_ask is not None:
            self.on_ask()
        await asyncio.sleep(0)
        one = self.driver.running.get(str(endpoint.path).rpartition("/")[2])
        if one is None or not one.answers:
            raise ProbeError("told not to answer")
        assert one.spec.key == key
        return ProxyStats(one.in_flight, one.last_activity, 0, 0)

    async def disconnect(self, endpoint: Endpoint, key: str, bridge: str, *, timeout: float) -> None:
        await asyncio.sleep(0)
        one = self.driver.running.get(str(endpoint.path).rpartition("/")[2])
        if one is None or not one.answers:
            raise ProbeError("told not to answer")
        assert one.spec.key == key
        self.cut.append((one.user, bridge))


@dataclass
class Parts:
    """A reconciler at work."""

    reconciler: Reconciler
    driver: MemoryDriver
    probe: MemoryProbe
    clock: FakeClock
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    async def until(self, what: Callable[[], bool], turns: int = 2000) -> None:
        """Let the loop turn, without the clock, until something holds."""
        for _ in range(turns):
            if what():
                return
            await asyncio.sleep(0)
        raise AssertionError("it did not come about")

    async def settle(self) -> None:
        """Let everything that can happen now happen."""
        self.reconciler.wake()
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Tell the reconciler to stop and wait for it."""
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


@contextlib.asynccontextmanager
async def running(
    driver: MemoryDriver | None = None, *, stop_on_exit: bool = True, **policy: float
) -> AsyncIterator[Parts]:
    """A reconciler over the double; members of PolicyConfig by name, no spares unless asked for."""
    driver = driver or MemoryDriver()
    probe = MemoryProbe(driver)
    clock = FakeClock()
    config = PolicyConfig(**{"warm": 0, **policy})  # type: ignore[arg-type] # the tests name real members
    reconciler = Reconciler(
        driver, probe, clock, config, poll_interval=1e6, stop_on_exit=stop_on_exit, stop_grace=2.0
    )
    stop = asyncio.Event()
    task = asyncio.get_running_loop().create_task(reconciler.run(stop))
    parts = Parts(reconciler, driver, probe, clock, stop, task)
    try:
        await parts.until(lambda: reconciler.ready or task.done())
        yield parts
    finally:
        await parts.end()
