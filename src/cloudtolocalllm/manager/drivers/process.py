"""Proxies as processes of this machine, forked from a preloaded fork server.

Each has a folder of its own, mode 0700, with its socket and its record. A process is watched by a pidfd, which says
at once when it ends, whoever its parent is; so adopted proxies are watched like the ones that were just started.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers import folders
from cloudtolocalllm.manager.drivers.base import DriverError, Found, GoneCallback, InstanceSpec
from cloudtolocalllm.manager.drivers.forkserver import ForkServer
from cloudtolocalllm.manager.drivers.process_spec import (
    RECORD,
    ProcessConfig,
    Record,
    check_run_dir,
    endpoint_of,
    instance_folder,
    spawn_request,
)
from cloudtolocalllm.manager.probe import Probe
from cloudtolocalllm.runtime import processes
from cloudtolocalllm.runtime.forkserver import write_record

log = logging.getLogger(__name__)

KILL_TIMEOUT = 5.0
"""Seconds from SIGKILL to the end of a process; more means it hangs in the kernel."""
ADOPT_TIMEOUT = 2.0
"""Seconds in which a proxy that is to be adopted must answer."""
ADOPT_AT_ONCE = 32
ENDED_AT_ONCE = "expected the proxy to run, but it ended at once; its log says why"
READY_TIMEOUT = 2.0
"""Seconds for one look at whether a new proxy is ready; when it fails, the next look follows."""
FIRST_DELAY = 0.002
LAST_DELAY = 0.05
"""Seconds between looks at whether a new proxy is ready: 2 ms at first, since most are ready within 30 ms; 50 ms
later, so that hundreds that start together are not slowed by being asked."""


class _Process:
    """A living proxy, or one whose end was just noticed."""

    __slots__ = ("gone", "pid", "pidfd", "record")

    def __init__(self, record: Record, pidfd: int) -> None:
        self.record = record
        self.pid = record.pid
        self.pidfd = pidfd
        self.gone = asyncio.Event()


class ProcessDriver:
    """The driver for one machine without a container engine."""

    def __init__(self, config: ProcessConfig, probe: Probe) -> None:
        """Make a driver that has not taken up its work.

        Raises:
            ValueError: `config.run_dir` cannot hold sockets.
        """
        check_run_dir(config.run_dir)
        self._config = config
        self._probe = probe
        self._forkserver = ForkServer(config.forkserver)
        self._processes: dict[str, _Process] = {}
        self._on_gone: GoneCallback = _ignore
        self._lock: int | None = None

    @property
    def ready(self) -> bool:
        """Whether new proxies can be made now."""
        return self._forkserver.ready

    @property
    def forkserver_pid(self) -> int | None:
        """The fork server's process, or None while there is none."""
        return self._forkserver.pid

    async def open(self, on_gone: GoneCallback) -> list[Found]:
        """See `Driver.open`."""
        self._on_gone = on_gone
        self._lock = folders.take(self._config.folder)
        try:
            adopting = asyncio.Semaphore(ADOPT_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forkserver.open())
                tasks = [group.create_task(self._adopt_or_remove(path, adopting)) for path in self._folders()]
        except ExceptionGroup as errors:
            await self.close()
            raise errors.exceptions[0] from None
        return [found for task in tasks if (found := task.result()) is not None]

    async def start(self, spec: InstanceSpec) -> Endpoint:
        """See `Driver.start`."""
        folder = instance_folder(self._config.folder, spec.id)
        folders.make(folder)
        try:
            pid = await self._forkserver.spawn(spawn_request(spec, self._config))
            await self._until_ready(self._watch_new(spec, pid))
        except BaseException:
            if (half := self._processes.get(spec.id)) is not None:
                _kill_group(half)
            else:
                folders.remove(folder)
            raise
        return endpoint_of(self._config, spec.id)

    async def assign(self, instance: str, user: str) -> None:
        """See `Driver.assign`."""
        process = self._processes.get(instance)
        if process is None or process.gone.is_set():
            raise DriverError("expected a running proxy, got one that is gone")
        spec = dataclasses.replace(process.record.spec, user=user)
        record = dataclasses.replace(process.record, spec=spec)
        try:
            write_record(instance_folder(self._config.folder, instance) / RECORD, record.to_json())
        except OSError as error:
            raise DriverError(f"the record cannot be written: {error.strerror}") from error
        process.record = record

    async def stop(self, instance: str, grace: float) -> None:
        """See `Driver.stop`."""
        process = self._processes.get(instance)
        if process is not None:
            if grace > 0:
                _signal(process, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.gone.wait(), grace)
            if not process.gone.is_set():
                _kill_group(process)
                try:
                    await asyncio.wait_for(process.gone.wait(), KILL_TIMEOUT)
                except TimeoutError:
                    raise DriverError(f"process {process.pid} outlived SIGKILL by {KILL_TIMEOUT:.0f} s") from None
            self._forget(process)
        folders.remove(instance_folder(self._config.folder, instance))

    async def list(self) -> set[str]:
        """See `Driver.list`."""
        return {path.name for path in self._folders()}

    def outdated(self) -> set[str]:
        """See `Driver.outdated`: a process's code is its manager's."""
        return set()

    async def close(self) -> None:
        """See `Driver.close`."""
        await self._forkserver.close()
        for process in list(self._processes.values()):
            self._forget(process)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def process_id(self, instance: str) -> int | None:
        """Return the process id of an instance that runs, for tests and measurements."""
        process = self._processes.get(instance)
        return None if process is None or process.gone.is_set() else process.pid

    def _folders(self) -> Iterator[Path]:
        return (path for path in self._config.folder.iterdir() if path.is_dir())

    async def _adopt_or_remove(self, folder: Path, adopting: asyncio.Semaphore) -> Found | None:
        try:
            return await self._adopt(folder, adopting)
        except (DriverError, OSError):
            # It shows up in `list` and is stopped as a stray, again and again; the others must not suffer.
            log.exception("a proxy can be neither adopted nor removed", extra={"id": folder.name})
            return None

    async def _adopt(self, folder: Path, adopting: asyncio.Semaphore) -> Found | None:
        """Take over what an earlier manager left in one folder, or remove it."""
        record = _read_record(folder)
        if record is None or processes.start_time(record.pid) != record.started:
            log.info("removing what is left of a proxy that is gone", extra={"id": folder.name})
            folders.remove(folder)
            return None
        try:
            self._watch(record)
        except DriverError:
            folders.remove(folder)
            return None
        endpoint = endpoint_of(self._config, record.spec.id)
        async with adopting:
            if await self._probe.healthy(endpoint, record.spec.key, timeout=ADOPT_TIMEOUT):
                return Found(record.spec, endpoint)
            log.warning("ending a proxy that does not answer", extra={"id": record.spec.id, "pid": record.pid})
            await self.stop(record.spec.id, 0)
        return None

    def _watch_new(self, spec: InstanceSpec, pid: int) -> _Process:
        started = processes.start_time(pid)
        if started is None:
            raise DriverError(ENDED_AT_ONCE)
        record = Record(spec, pid, started)
        try:
            return self._watch(record)
        except OSError as error:
            # Too many descriptors: what cannot be watched must not run.
            if processes.start_time(record.pid) == record.started:
                os.kill(record.pid, signal.SIGKILL)
            raise DriverError(f"the proxy cannot be watched: {error.strerror}") from error

    def _watch(self, record: Record) -> _Process:
        """Hold on to a running process and hear of its end.

        Raises:
            DriverError: It ended meanwhile.
        """
        try:
            pidfd = os.pidfd_open(record.pid)
        except ProcessLookupError:
            raise DriverError(ENDED_AT_ONCE) from None
        # The id could have passed to another process before the pidfd fixed it.
        if processes.start_time(record.pid) != record.started:
            os.close(pidfd)
            raise DriverError(ENDED_AT_ONCE)
        process = _Process(record, pidfd)
        self._processes[record.spec.id] = process
        asyncio.get_running_loop().add_reader(pidfd, self._ended, process)
        return process

    def _ended(self, process: _Process) -> None:
        asyncio.get_running_loop().remove_reader(process.pidfd)
        process.gone.set()
        self._on_gone(process.record.spec.id)

    def _forget(self, process: _Process) -> None:
        if self._processes.get(process.record.spec.id) is process:
            del self._processes[process.record.spec.id]
            asyncio.get_running_loop().remove_reader(process.pidfd)
            os.close(process.pidfd)

    async def _until_ready(self, process: _Process) -> None:
        endpoint = endpoint_of(self._config, process.record.spec.id)
        key = process.record.spec.key
        socket_path = Path(str(endpoint.path))
        delay = FIRST_DELAY
        while not process.gone.is_set():
            if _is_there(socket_path) and await self._probe.healthy(endpoint, key, timeout=READY_TIMEOUT):
                return
            await asyncio.sleep(delay)
            delay = min(delay * 1.3, LAST_DELAY)
        raise DriverError("expected the proxy to become ready, but it ended; its log says why")


def _ignore(_instance: str) -> None:
    pass


def _is_there(path: Path) -> bool:
    return path.exists()


def _signal(process: _Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process.pidfd, number)


def _kill_group(process: _Process) -> None:
    # Its group has its id (setsid), and the id cannot have passed on while the process is not known to be gone.
    if not process.gone.is_set():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _signal(process, signal.SIGKILL)  # just forked, it may not have made its group yet


def _read_record(folder: Path) -> Record | None:
    try:
        record = Record.from_json(json.loads((folder / RECORD).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.spec.id == folder.name else None
