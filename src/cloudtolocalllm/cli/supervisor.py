"""Runs the parts as child processes: starts them, keeps them running, stops them in order."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.settings import environment

log = logging.getLogger(__name__)

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV")
"""Variables that parts get from `up`'s environment; everything else is theirs by name or not at all."""
MAX_RESTARTS = 5
"""Restarts of one part within RESTART_WINDOW after which the whole gives up."""
RESTART_WINDOW = 60.0
"""Seconds."""
MAX_LINE = 64 * 1024
"""Bytes of a log line that are kept."""


class PartFailedError(Exception):
    """A part ended again and again; the text tells which and shows its last lines."""


@dataclass(slots=True)
class Part:
    """One child process."""

    name: str
    """The service's name on our command line."""
    environ: Mapping[str, str]
    stop_grace: float
    """Seconds from SIGTERM to SIGKILL."""
    leash_variable: str
    """The setting that takes the leash's descriptor."""
    process: asyncio.subprocess.Process | None = None
    last_lines: list[str] = field(default_factory=list)
    """The newest log lines, at most 20."""
    stopping: bool = False


class Supervisor:
    """Children of this process. Each holds a leash: when this process dies, however it dies, they stop."""

    def __init__(self, *, on_line: Callable[[str], None], on_started: Callable[[dict[str, int]], None]) -> None:
        """Make a supervisor without children.

        Args:
            on_line: Takes each log line of every child.
            on_started: Told all process ids whenever one was started.
        """
        self._on_line = on_line
        self._on_started = on_started
        self._parts: list[Part] = []
        self._leash_read, self._leash_write = os.pipe()

    async def start(self, part: Part) -> None:
        """Start a part; its order among the parts is the reverse of the order in which they stop."""
        self._parts.append(part)
        await self._spawn(part)

    async def _spawn(self, part: Part) -> None:
        inherited = {name: value for name, value in environment().items() if name in INHERITED}
        part.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cloudtolocalllm",
            part.name,
            env={**inherited, **part.environ, part.leash_variable: str(self._leash_read)},
            pass_fds=(self._leash_read,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C must reach the parts in our order, not all at once from the terminal.
            start_new_session=True,
            limit=MAX_LINE,
        )
        self._on_started({p.name: p.process.pid for p in self._parts if p.process and p.process.returncode is None})

    async def watch(self) -> None:
        """Copy the logs and restart parts that end by themselves, until cancelled.

        Raises:
            PartFailedError: A part ended more than MAX_RESTARTS times within RESTART_WINDOW seconds.
        """
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(self._keep(part), name=f"keep {part.name}")

    async def _keep(self, part: Part) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(first=0.2, maximum=5.0)
        ends: list[float] = []
        while True:
            await self._copy_lines(part)
            assert part.process is not None  # noqa: S101 - set by _spawn, for the type checker
            status = await part.process.wait()
            if part.stopping:
                return
            now = loop.time()
            ends = [at for at in ends if now - at < RESTART_WINDOW] + [now]
            log.error("part ended by itself", extra={"part": part.name, "status": status})
            if len(ends) > MAX_RESTARTS:
                tail = "\n".join(part.last_lines[-8:])
                raise PartFailedError(f"{part.name} ended {len(ends)} times within a minute; its last lines:\n{tail}")
            await asyncio.sleep(backoff.next())
            if not part.stopping:
                await self._spawn(part)

    async def _copy_lines(self, part: Part) -> None:
        assert part.process is not None  # noqa: S101 - as above
        assert part.process.stdout is not None  # noqa: S101 - as above
        while True:
            try:
                line = await part.process.stdout.readline()
            except ValueError:  # longer than MAX_LINE: dropped by the reader
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip("\n")
            part.last_lines = [*part.last_lines[-19:], text]
            self._on_line(text)

    async def stop(self) -> None:
        """Stop every part, the newest first; a part that outlasts its grace is killed."""
        for part in self._parts:
            part.stopping = True
        for part in reversed(self._parts):
            await self._stop(part)
        os.close(self._leash_write)
        os.close(self._leash_read)

    async def _stop(self, part: Part) -> None:
        process = part.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), part.stop_grace)
        except TimeoutError:
            log.warning("part did not stop in time and is killed", extra={"part": part.name})
            process.kill()
            await process.wait()

    def kill(self) -> None:
        """Make the parts that still run end at once (a second Ctrl-C)."""
        for part in self._parts:
            part.stop_grace = 0.1
            if part.process is not None and part.process.returncode is None:
                part.process.kill()
