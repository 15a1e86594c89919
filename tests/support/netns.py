"""Connections made from inside a container's network, by a thread that enters it (setns(2)); needs root."""

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.support.docker_engine import process_of

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.probe import HttpProbe

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def connect_in(pid: int, host: str, port: int, timeout: float) -> socket.socket:
    """Connect from a process's network; the socket stays in it, this thread does not."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _enter(theirs)
        try:
            return socket.create_connection((host, port), timeout)
        finally:
            _enter(own)
    finally:
        os.close(own)
        os.close(theirs)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Doors:
    """A port of this machine for each address in a container's network, or for a Unix socket."""

    def __init__(self, container: str | None) -> None:
        self._container = container
        self._doors: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def door(self, endpoint: Endpoint) -> Endpoint:
        """Return where an endpoint can be reached from here."""
        name = str(endpoint)
        if name not in self._doors:
            self._doors[name] = await asyncio.start_server(self._through(endpoint), "127.0.0.1", 0)
        return Endpoint(host="127.0.0.1", port=self._doors[name].sockets[0].getsockname()[1])

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._doors.values():
            server.close()

    def _through(self, endpoint: Endpoint) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                far_reader, far_writer = await self._far(endpoint)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pipe(reader, far_writer))
                    group.create_task(_pipe(far_reader, writer))
            except (OSError, ExceptionGroup, asyncio.CancelledError):
                pass  # either end went; nobody waits for this task
            finally:
                writer.close()
                self._tasks.discard(task)

        return through

    async def _far(self, endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if endpoint.path is not None:
            return await asyncio.open_unix_connection(endpoint.path)
        assert self._container is not None
        pid = await asyncio.to_thread(process_of, self._container)
        made = await asyncio.to_thread(connect_in, pid, endpoint.host or "", endpoint.port or 0, 2.0)
        return await asyncio.open_connection(sock=made)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError):
            writer.close()


class InsideProbe(HttpProbe):
    """The manager's probe as it works in a container that is let into the proxies' networks."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def _ask(
        self, method: str, endpoint: Endpoint, key: str, target: str, timeout: float, status: int
    ) -> bytes:
        return await super()._ask(method, await self._doors.door(endpoint), key, target, timeout, status)


@contextlib.asynccontextmanager
async def doors(container: str | None) -> AsyncIterator[Doors]:
    """Doors that are shut at the end."""
    made = Doors(container)
    try:
        yield made
    finally:
        await made.close()
