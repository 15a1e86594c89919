"""Proxies as containers of a Docker engine.

Labels say what belongs to this manager; the records beside them hold the keys, and whose a spare has become. The
data path does not pass through the engine: while its daemon is away, proxies that run go on, and only new ones wait.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers import folders
from cloudtolocalllm.manager.drivers.base import (
    DriverError,
    DriverUnavailableError,
    Found,
    GoneCallback,
    InstanceSpec,
)
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.engine import NOT_FOUND, Engine, Event, Listed, RefusedError
from cloudtolocalllm.manager.drivers.docker.networks import Networks
from cloudtolocalllm.manager.drivers.docker.records import Records
from cloudtolocalllm.manager.drivers.docker.spec import DockerConfig, Isolation
from cloudtolocalllm.manager.probe import Probe
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

LOOK_INTERVAL = 20.0
"""Seconds between two looks at what the engine has: for an event that was missed, and for a new image."""
EVENT_OVERLAP = 5.0
"""Seconds of the past whose events are asked for, so that none is lost while the first look is taken."""
ADOPT_TIMEOUT = 2.0
"""Seconds in which a proxy that is to be adopted must answer."""
ADOPT_TRIES = 3
"""As many as the policy's failed checks: a machine that just started is busy."""
ADOPT_AT_ONCE = 32
READY_TIMEOUT = 2.0
FIRST_DELAY, LAST_DELAY = 0.005, 0.05
"""Seconds between looks at whether a new proxy is ready; looking for its socket costs microseconds."""
DENSE = 0.5
"""Seconds for which a socket that does not come is looked for in the shortest steps: most are there by then."""


class _Container:
    """A proxy's container that was started or adopted."""

    __slots__ = ("gone", "id", "image", "spec")

    def __init__(self, container: str, image: str, spec: InstanceSpec) -> None:
        self.id = container
        self.image = image
        self.spec = spec
        self.gone = asyncio.Event()


class DockerDriver:
    """The driver for a host with a Docker engine."""

    def __init__(self, config: DockerConfig, probe: Probe, clock: Clock) -> None:
        """Make a driver that has not taken up its work.

        Raises:
            ValueError: `config.run_dir` cannot hold sockets.
        """
        specs.check_paths(config)
        self._config = config
        self._probe = probe
        self._clock = clock
        self._engine = Engine(config.url)
        self._records = Records(config.records)
        self._networks = Networks(self._engine, config)
        self._containers: dict[str, _Container] = {}
        self._on_gone: GoneCallback = _ignore
        self._tasks = TaskSet(limit=1000)
        self._manager = ""
        self._sockets = ""
        self._image: str | None = None
        self._up = False
        self._lock: int | None = None

    @property
    def ready(self) -> bool:
        """Whether new proxies can be made now: the engine answers and has the image."""
        return self._up and self._image is not None

    async def open(self, on_gone: GoneCallback) -> list[Found]:
        """See `Driver.open`."""
        self._on_gone = on_gone
        try:
            self._take_folders()
            self._manager = self._records.identity()
            self._sockets = await self._sockets_folder()
            await self._see_image()
            found = await self._adopt_all()
        except BaseException:
            await self.close()
            raise
        self._up = True
        self._tasks.start(self._watch(), "engine's events")
        self._tasks.start(self._look_again(), "looks at the engine")
        return list(found)

    async def start(self, spec: InstanceSpec) -> Endpoint:
        """See `Driver.start`."""
        try:
            specs.check(spec)
        except ValueError as error:
            raise DriverError(str(error)) from None
        made, endpoint = await self._make(spec)
        await self._until_ready(made, endpoint)
        return endpoint

    async def assign(self, instance: str, user: str) -> None:
        """See `Driver.assign`."""
        container = self._containers.get(instance)
        if container is None or container.gone.is_set():
            raise DriverError("expected a running proxy, got one that is gone")
        spec = dataclasses.replace(container.spec, user=user)
        try:
            specs.check(spec)
        except ValueError as error:
            raise DriverError(str(error)) from None
        self._records.write(spec)
        container.spec = spec

    async def stop(self, instance: str, grace: float) -> None:
        """See `Driver.stop`."""
        if not specs.is_instance(instance):
            raise DriverError("expected an instance id of px- and 16 hexadecimal digits")
        name = specs.container_name(instance)
        if grace > 0:
            await self._engine.stop(name, grace)
        await self._engine.remove(name)
        if self._config.isolation is Isolation.NETWORK or self._networks.subnet(instance) is not None:
            await self._networks.remove(instance)
        self._gone(instance)
        folders.remove(self._config.folder / instance)
        self._records.remove(instance)  # last: while it is there, `list` knows that something may be left
        self._containers.pop(instance, None)

    async def list(self) -> set[str]:
        """See `Driver.list`."""
        label = f"{specs.MANAGED_BY}={self._manager}"
        listed = await self._engine.containers(label)
        networks = await self._engine.networks(label)
        # Read last: a start that runs meanwhile writes its record first.
        ids = {one.labels.get(specs.INSTANCE, "") for one in listed}
        ids |= {labels.get(specs.INSTANCE, "") for labels, _ in networks}
        ids |= self._records.ids() | set(self._names())
        return {instance for instance in ids if specs.is_instance(instance)}

    def outdated(self) -> set[str]:
        """See `Driver.outdated`: what runs an image that the name in the settings does not mean any more."""
        return {
            one.spec.id for one in self._containers.values() if self._image is not None and one.image != self._image
        }

    async def close(self) -> None:
        """See `Driver.close`."""
        self._up = False
        await self._tasks.close()
        await self._engine.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- taking up the work

    def _take_folders(self) -> None:
        try:
            self._lock = folders.take(self._config.records)
            self._config.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            if self._config.isolation is Isolation.SOCKET:
                os.chown(self._config.folder, -1, self._config.user)  # nginx, in this group, may go through
                self._config.folder.chmod(0o750)
        except OSError as error:
            mend = f"; the manager must belong to group {self._config.user}, or be root"
            hint = mend if isinstance(error, PermissionError) else ""
            raise DriverError(f"the run folder cannot be used: {error.strerror}{hint}") from error

    async def _sockets_folder(self) -> str:
        """Return the folder of the proxies' folders as the engine sees it."""
        if not self._config.sockets:
            return str(self._config.folder)
        if self._config.sockets.startswith("/"):
            return self._config.sockets.rstrip("/")
        return await self._engine.volume_folder(self._config.sockets)

    def _names(self) -> Iterator[str]:
        return (path.name for path in self._config.folder.iterdir() if path.is_dir())

    async def _adopt_all(self) -> tuple[Found, ...]:
        label = f"{specs.MANAGED_BY}={self._manager}"
        listed = {one.labels.get(specs.INSTANCE, ""): one for one in await self._engine.containers(label)}
        for labels, subnet in await self._engine.networks(label):
            self._networks.found(labels.get(specs.INSTANCE, ""), subnet)
        await self._networks.let_in()  # first: whoever was replaced meanwhile could not ask any of them
        adopting = asyncio.Semaphore(ADOPT_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._adopt_or_remove(instance, listed.get(instance), adopting))
                for instance in await self.list()
            ]
        return tuple(found for task in tasks if (found := task.result()) is not None)

    async def _adopt_or_remove(
        self, instance: str, listed: Listed | None, adopting: asyncio.Semaphore
    ) -> Found | None:
        async with adopting:
            try:
                return await self._adopt(instance, listed)
            except DriverError:
                # It shows up in `list` and is stopped as a stray, again and again; the others must not suffer.
                log.exception("a proxy can be neither adopted nor removed", extra={"id": instance})
                return None

    async def _adopt(self, instance: str, listed: Listed | None) -> Found | None:
        spec = self._records.read(instance)
        if listed is None or not listed.running or spec is None:
            log.info("removing what is left of a proxy", extra={"id": instance, "record": spec is not None})
            # One that runs without a record cannot be asked what it does: it gets time to finish that.
            await self.stop(instance, self._config.drain if listed is not None and listed.running else 0)
            return None
        container = self._containers[instance] = _Container(listed.id, listed.image, spec)
        endpoint = specs.endpoint_of(self._config, instance, self._networks.subnet(instance))
        for _ in range(ADOPT_TRIES):
            if await self._probe.healthy(endpoint, spec.key, timeout=ADOPT_TIMEOUT):
                return Found(container.spec, endpoint)
        log.warning("ending a proxy that does not answer", extra={"id": instance})
        await self.stop(instance, 0)
        return None

    # -- starting

    async def _make(self, spec: InstanceSpec) -> tuple[_Container, Endpoint]:
        """Make and start an instance's container, with its record, and its folder or its network."""
        image = await self._current_image()
        self._records.write(spec)
        subnet = None
        if self._config.isolation is Isolation.NETWORK:
            subnet = await self._networks.make(self._manager, spec)
        else:
            folders.make(self._config.folder / spec.id, mode=0o770, group=self._config.user)
        body = specs.container(self._config, self._manager, spec, image=image, sockets=self._sockets, subnet=subnet)
        try:
            container = await self._engine.create(specs.container_name(spec.id), body)
        except RefusedError as error:
            if error.status == NOT_FOUND:
                self._image = None  # removed since it was looked for; the next start looks again
            raise
        made = self._containers[spec.id] = _Container(container, image, spec)
        await self._engine.start(container, spec.key.encode() + b"\n")
        return made, specs.endpoint_of(self._config, spec.id, subnet)

    async def _current_image(self) -> str:
        if self._image is None:
            await self._see_image()
        if self._image is None:
            raise DriverUnavailableError("the container engine lacks the proxies' image")
        return self._image

    async def _see_image(self) -> None:
        image = await self._engine.image_id(self._config.image)
        if image is None:
            log.error(
                "expected the proxies' image in the engine, but it is not there: build it or pull it",
                extra={"image": self._config.image},
            )
        elif self._image is not None and image != self._image:
            log.info("new proxies are made of a new image", extra={"image": self._config.image})
        self._image = image

    async def _until_ready(self, container: _Container, endpoint: Endpoint) -> None:
        path = None if endpoint.path is None else Path(endpoint.path)
        key = container.spec.key
        loop = asyncio.get_running_loop()
        delay, dense_until = FIRST_DELAY, loop.time() + DENSE
        while not container.gone.is_set():
            if _is_there(path) and await self._probe.healthy(endpoint, key, timeout=READY_TIMEOUT):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(container.gone.wait(), delay)
            if _is_there(path) or loop.time() > dense_until:
                delay = min(delay * 1.3, LAST_DELAY)
        words = await self._engine.last_words(container.id)
        log.warning("a proxy ended before it was ready", extra={"id": container.spec.id, "last_words": words})
        raise DriverError("expected the proxy to become ready, but it ended")

    # -- what happens by itself

    async def _watch(self) -> None:
        """Hear of the engine's events, for ever; after each silence, look at what was missed."""
        backoff = Backoff(first=0.2, maximum=2.0)
        since = self._clock.wall() - EVENT_OVERLAP
        while True:
            try:
                await self._hear(since, backoff)
            except DriverError as error:
                if self._up:
                    log.warning("the engine cannot be heard", extra={"error": str(error)})
            self._up = False
            since = self._clock.wall() - EVENT_OVERLAP
            await asyncio.sleep(backoff.next())

    async def _hear(self, since: float, backoff: Backoff) -> None:
        await self._look()
        if not self._up:
            log.info("the engine answers")
        self._up = True
        backoff.reset()
        async with contextlib.aclosing(self._engine.events(since)) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: Event) -> None:
        instance = event.labels.get(specs.INSTANCE, "")
        known = self._containers.get(instance)
        if known is not None and known.id == event.container:
            if event.action == "die":
                log.info("a container ended", extra={"id": instance, "status": event.labels.get("exitCode")})
                self._gone(instance)
            elif event.action == "oom":
                log.warning("a container used all its memory", extra={"id": instance})
        elif event.action == "start" and self._networks.lets_in(event.name, event.labels):
            self._tasks.start(self._let_in(), "lets a container into the networks")

    async def _let_in(self) -> None:
        try:
            await self._networks.let_in()
        except DriverError as error:
            # The next look repeats it.
            log.warning("a container was not let into every network", extra={"error": str(error)})

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            if not self._up:
                continue
            try:
                await self._look()
            except DriverError as error:
                log.warning("the engine cannot be looked at", extra={"error": str(error)})

    async def _look(self) -> None:
        """Note what ended without a word, and what the image's name means now; open doors that should be."""
        before = dict(self._containers)
        listed = await self._engine.containers(f"{specs.MANAGED_BY}={self._manager}")
        there = {one.id for one in listed if not one.ended}  # one that is just being started is there
        for instance, container in before.items():
            if container.id not in there:
                self._gone(instance)
        await self._see_image()
        await self._networks.let_in()

    def _gone(self, instance: str) -> None:
        container = self._containers.get(instance)
        if container is not None and not container.gone.is_set():
            container.gone.set()
            self._on_gone(instance)


def _ignore(_instance: str) -> None:
    pass


def _is_there(path: Path | None) -> bool:
    return path is None or path.exists()
