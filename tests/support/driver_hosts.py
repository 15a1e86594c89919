"""Each way to run proxies, as the contract suite meets it: the driver, and hands to hurt what it made."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from tests.support.docker_engine import bystander, docker, proxy_image, remove
from tests.support.netns import Doors, InsideProbe, doors
from tests.support.short_folder import short_folder

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import Driver, DriverError, InstanceSpec
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.driver import DockerDriver
from cloudtolocalllm.manager.drivers.docker.records import Records
from cloudtolocalllm.manager.drivers.docker.spec import ContainerLimits, DockerConfig, Isolation
from cloudtolocalllm.manager.drivers.process import ProcessDriver
from cloudtolocalllm.manager.drivers.process_spec import ProcessConfig
from cloudtolocalllm.manager.probe import HttpProbe, Probe
from cloudtolocalllm.runtime.clock import SystemClock

FORKSERVER = (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")


def spec(user: str | None = None) -> InstanceSpec:
    """An instance as the reconciler draws it."""
    return InstanceSpec("px-" + secrets.token_hex(8), user, secrets.token_hex(32), round(time.time(), 3))


class Host(Protocol):
    """A place where managers come and go."""

    gone: list[str]
    """What `on_gone` said."""
    probe: Probe

    def driver(self) -> Driver:
        """A driver that has not taken up its work, on the same folders."""
        ...

    async def opened(self) -> Driver:
        """A driver at work that found nothing."""
        ...

    async def kill(self, instance: str) -> None:
        """End a proxy as the kernel would."""
        ...

    async def freeze(self, instance: str) -> None:
        """Stop a proxy in mid-life: it does not answer any more."""
        ...

    def left(self) -> set[str]:
        """Everything that is there of any instance: folders, records, processes, containers, networks."""
        ...

    async def door(self, endpoint: Endpoint) -> Endpoint:
        """Where this machine reaches an endpoint by TCP."""
        ...


class _Base:
    def __init__(self, run_dir: Path, doors: Doors) -> None:
        self.run_dir = run_dir
        self.gone: list[str] = []
        self.made: list[Any] = []
        self._doors = doors

    async def door(self, endpoint: Endpoint) -> Endpoint:
        return await self._doors.door(endpoint)

    async def close(self) -> None:
        """End everything."""
        for driver in self.made:
            with contextlib.suppress(DriverError, OSError):
                for instance in await driver.list():
                    await driver.stop(instance, 0)
            await driver.close()


class ProcessHost(_Base):
    """Processes, forked from a fork server."""

    def __init__(self, run_dir: Path, doors: Doors) -> None:
        super().__init__(run_dir, doors)
        self.probe: Probe = HttpProbe()

    def driver(self) -> ProcessDriver:
        made = ProcessDriver(ProcessConfig(self.run_dir, FORKSERVER), self.probe)
        self.made.append(made)
        return made

    async def opened(self) -> ProcessDriver:
        made = self.driver()
        assert await made.open(self.gone.append) == []
        return made

    def _pid(self, instance: str) -> int:
        return int(json.loads((self.run_dir / "proxies" / instance / "instance.json").read_text())["pid"])

    async def kill(self, instance: str) -> None:
        os.kill(self._pid(instance), signal.SIGKILL)

    async def freeze(self, instance: str) -> None:
        os.kill(self._pid(instance), signal.SIGSTOP)

    def left(self) -> set[str]:
        return {path.name for path in (self.run_dir / "proxies").iterdir() if path.is_dir()}


class DockerHost(_Base):
    """Containers of the machine's engine."""

    def __init__(self, run_dir: Path, doors: Doors, **config: Any) -> None:
        super().__init__(run_dir, doors)
        self.config = DockerConfig(run_dir, **{"image": proxy_image(), **config})
        network = self.config.isolation is Isolation.NETWORK
        self.probe: Probe = InsideProbe(doors) if network else HttpProbe()

    def driver(self) -> DockerDriver:
        made = DockerDriver(self.config, self.probe, SystemClock())
        self.made.append(made)
        return made

    async def opened(self) -> DockerDriver:
        made = self.driver()
        assert await made.open(self.gone.append) == []
        return made

    @property
    def manager(self) -> str:
        """The id that everything is labelled with."""
        return Records(self.config.records).identity()

    async def kill(self, instance: str) -> None:
        await asyncio.to_thread(docker, "kill", specs.container_name(instance))

    async def freeze(self, instance: str) -> None:
        await asyncio.to_thread(docker, "pause", specs.container_name(instance))

    def left(self) -> set[str]:
        mine = f"label={specs.MANAGED_BY}={self.manager}"
        found = set(docker("ps", "-a", "--filter", mine, "--format", "{{.Names}}").split())
        found |= set(docker("network", "ls", "--filter", mine, "--format", "{{.Name}}").split())
        found = {name.removeprefix("c2l-proxy-").removeprefix("c2l-net-") for name in found}
        return found | {path.name for path in self.config.folder.iterdir()} | Records(self.config.records).ids()


@contextlib.asynccontextmanager
async def process_host() -> AsyncIterator[ProcessHost]:
    """The process driver."""
    with short_folder() as folder:
        async with doors(None) as opened:
            host = ProcessHost(folder, opened)
            try:
                yield host
            finally:
                await host.close()


@contextlib.asynccontextmanager
async def docker_host(isolation: Isolation = Isolation.SOCKET, **config: Any) -> AsyncIterator[DockerHost]:
    """The Docker driver; with networks, a container stands in for the manager's and nginx's."""
    proxy_image()
    attach = (await asyncio.to_thread(bystander),) if isolation is Isolation.NETWORK else ()
    config.setdefault("limits", ContainerLimits())
    try:
        with short_folder() as folder:
            async with doors(attach[0] if attach else None) as opened:
                host = DockerHost(folder, opened, isolation=isolation, attach=attach, **config)
                try:
                    yield host
                finally:
                    await host.close()
    finally:
        if attach:
            await asyncio.to_thread(remove, *attach)
