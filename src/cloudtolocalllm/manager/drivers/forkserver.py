"""The fork server as the process driver sees it: asked for children, and started again when it dies."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from typing import Any

from cloudtolocalllm.manager.drivers.base import DriverError
from cloudtolocalllm.runtime import settings
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.forkserver import MAX_LINE, SpawnRequest, scrubbed_environment
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

READY_TIMEOUT = 30.0
"""Seconds that a fork server may take to import everything, on a machine that is busy starting."""
EXIT_TIMEOUT = 5.0
"""Seconds from the end of its connection to the end of its process."""


class ForkServer:
    """Keeps one fork server process alive and passes spawn requests to it."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._tasks = TaskSet(limit=1)
        self._up = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[str, asyncio.Future[int]] = {}
        self.pid: int | None = None
        """The process, or None while there is none."""

    @property
    def ready(self) -> bool:
        """Whether children can be had now."""
        return self._up.is_set()

    async def open(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            DriverError: It was not ready within READY_TIMEOUT.
        """
        self._tasks.start(self._keep(), "fork server")
        try:
            await asyncio.wait_for(self._up.wait(), READY_TIMEOUT)
        except TimeoutError:
            await self.close()
            raise DriverError(
                f"expected the fork server to be ready within {READY_TIMEOUT:.0f} s; its own log on standard error "
                "says what is wrong"
            ) from None

    async def spawn(self, request: SpawnRequest) -> int:
        """Fork a child and return its process id; the caller sets the deadline.

        A child that comes after the caller was cancelled is killed.

        Raises:
            DriverError: It could not be forked, or the fork server died meanwhile.
        """
        await self._up.wait()
        if self._writer is None:
            raise DriverError("the fork server died")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[request.id] = future
        try:
            self._writer.write(request.to_line())
            return await future
        finally:
            if future.done() and not future.cancelled():
                self._pending.pop(request.id, None)

    async def close(self) -> None:
        """End it; its children live on."""
        await self._tasks.close()

    async def _keep(self) -> None:
        backoff = Backoff(first=0.05, maximum=5.0)
        while True:
            try:
                if await self._serve_one():
                    backoff.reset()
            except (OSError, ValueError):
                log.exception("the fork server cannot be started or understood")
            delay = backoff.next()
            log.warning("the fork server ended; starting another", extra={"delay": round(delay, 3)})
            await asyncio.sleep(delay)

    async def _serve_one(self) -> bool:
        """Run one process to its end; return whether it ever was ready."""
        ours, process = self._launch()
        was_ready = False
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=2 * MAX_LINE)
            self.pid = process.pid
            while line := await reader.readline():
                was_ready |= self._take(json.loads(line))
            return was_ready
        finally:
            self.pid = None
            self._up.clear()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(DriverError("the fork server died"))
            self._pending.clear()
            await _ended(process)

    def _launch(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - the command is ours: a default, or the operator's setting
                self._command,
                stdin=theirs.fileno(),
                stdout=2,  # standard output may be somebody's data, as with `up --json`
                env=scrubbed_environment(settings.environment()),
                cwd="/",
                start_new_session=True,
            )
        ours.setblocking(False)
        return ours, process

    def _take(self, message: dict[str, Any]) -> bool:
        """Handle one message; return whether it says that the server is ready."""
        if "ready" in message:
            self._up.set()
            return True
        if "spawned" in message:
            pid = int(message["pid"])
            future = self._pending.pop(message["spawned"], None)
            if future is None or future.done():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            else:
                future.set_result(pid)
        elif "failed" in message:
            future = self._pending.pop(message["failed"], None)
            if future is not None and not future.done():
                future.set_exception(DriverError(str(message["error"])))
        return False


async def _ended(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process whose connection has ended is gone; insist if need be."""
    delay = 0.001
    waited = 0.0
    while process.poll() is None:
        if waited > EXIT_TIMEOUT:
            process.kill()
        # Polled, because asyncio's child watchers would each take a thread or a signal handler for this one wait.
        await asyncio.sleep(delay)
        waited += delay
        delay = min(delay * 2, 0.05)
