"""One nginx, by its master process: started, told to read its configuration anew, ended."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudtolocalllm.edge.nginx.ports import Ports
from cloudtolocalllm.edge.nginx.render import CLOSING, CONFIGURATION, HEALTH
from cloudtolocalllm.edge.nginx.waits import first_of
from cloudtolocalllm.edge.nginx.workers import accepting, leaving
from cloudtolocalllm.runtime.settings import environment

INHERIT = "NGINX"
"""Variable by which nginx hands its listening sockets to the next binary (ngx_add_inherited_sockets): numbers, each
with a semicolon. It takes each where a `listen` names the same address."""
TAKES = 10.0
"""Seconds that nginx may take to start, or to read its configuration."""
KILL_AFTER = 5.0
"""Seconds that a killed nginx may take to end."""
LOOK_EVERY = 0.02


class Master:
    """A running nginx."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        """Take over a process that was started with its state folder."""
        self._process = process
        self._state = state

    @classmethod
    async def start(cls, program: str, state: Path, ports: Ports | None) -> "Master":
        """Start one with the configuration in the state folder.

        Args:
            program: nginx.
            state: Its state folder.
            ports: Whose sockets it inherits; None where it listens by itself.
        """
        handed = {INHERIT: ports.variable()} if ports else {}
        environ = {name: value for name, value in environment().items() if name != INHERIT}
        process = await asyncio.create_subprocess_exec(
            program,
            *("-e", "stderr", "-p", str(state), "-c", str(state / "conf" / CONFIGURATION), "-g", "daemon off;"),
            pass_fds=[one.fileno() for one in ports.sockets] if ports else (),
            env={**environ, **handed},
        )
        return cls(process, state)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.returncode

    async def ended(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()

    def accepting(self) -> set[int]:
        """Return its workers that accept connections."""
        return accepting(self.pid)

    def leaving(self) -> set[int]:
        """Return its workers that only finish what they have."""
        return leaving(self.pid)

    async def answers(self) -> bool:
        """Wait until a worker answers; False when none does in time."""

        def one() -> bool:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)
                return probe.connect_ex(str(self._state / HEALTH)) == 0 and bool(self.accepting())

        return await self._until(one, TAKES)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Have each answer say that its connection closes, for the time of the block."""
        mark = self._state / CLOSING
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    async def reload(self) -> bool:
        """Have it read its configuration and wait until its former workers accept nothing more; False if they do."""
        former = self.accepting()
        self._send(signal.SIGHUP)
        return await self._until(lambda: not former & self.accepting(), TAKES)

    async def gone(self, pids: set[int], within: float | None) -> bool:
        """Wait until workers have ended; False when they have not in so many seconds."""
        return await self._until(lambda: not pids & (self.accepting() | self.leaving()), within)

    def leave(self) -> None:
        """Have it accept nothing more, and end when it has finished what is under way."""
        self._send(signal.SIGQUIT)

    async def kill(self) -> None:
        """End it at once."""
        await self._end((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, KILL_AFTER))

    async def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        for number, seconds in steps:
            if self.status is not None:
                return
            self._send(number)
            await first_of(self.ended(), within=seconds)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _until(self, true: Callable[[], bool], within: float | None) -> bool:
        try:
            async with asyncio.timeout(within):
                pause = LOOK_EVERY
                while self.status is None and not true():
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, 0.5)
        except TimeoutError:
            return False
        return true()
