"""Runs the parts as child processes: starts them, keeps them running, stops them in order."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.runtime.settings import environment

log = logging.getLogger(__name__)

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV")
"""Variables that parts get from `up`'s environment; everything else is theirs by name or not at all."""
PROGRAM = (sys.executable, "-m", "cloudtolocalllm")
MAX_RESTARTS = 5
"""Restarts of one part within RESTART_WINDOW after which the whole gives up."""
RESTART_WINDOW = 60.0
"""Seconds."""
MAX_LINE = 64 * 1024
"""Bytes of a log line that are kept."""
LAST_LINES = 1.0
"""Seconds for which the logs are read on after all parts have ended; a proxy that outlasts them holds a pipe open."""


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


@dataclass(frozen=True, slots=True, eq=False)
class _Output:
    """The logs of one run of a part, and of what that run started and that may outlive it."""

    part: Part
    lines: asyncio.StreamReader
    transport: asyncio.ReadTransport


class Supervisor:
    """Children of this process. Each holds a leash: when this process dies, however it dies, they stop."""

    def __init__(
        self,
        *,
        on_line: Callable[[str], None],
        on_started: Callable[[dict[str, int]], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Make a supervisor without children.

        Args:
            on_line: Takes each log line of every child.
            on_started: Told all process ids whenever one was started.
            program: What runs a part when its name is added.
        """
        self._program = program
        self._on_line = on_line
        self._on_started = on_started
        self._parts: list[Part] = []
        self._outputs: list[_Output] = []
        self._leash_read, self._leash_write = os.pipe()

    async def start(self, part: Part) -> None:
        """Start a part; its order among the parts is the reverse of the order in which they stop."""
        self._parts.append(part)
        await self._spawn(part)

    async def _spawn(self, part: Part) -> _Output:
        inherited = {name: value for name, value in environment().items() if name in INHERITED}
        # A pipe of our own: a subprocess's wait() would wait for the end of one of its own too, and a manager's is
        # held open by the proxies, which outlive it.
        read_end, write_end = os.pipe()
        try:
            part.process = await asyncio.create_subprocess_exec(
                *self._program,
                part.name,
                env={**inherited, **part.environ, part.leash_variable: str(self._leash_read)},
                pass_fds=(self._leash_read,),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C must reach the parts in our order, not all at once from the terminal.
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        lines = asyncio.StreamReader(limit=MAX_LINE)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(read_end, "rb")
        )
        output = _Output(part, lines, transport)
        self._outputs.append(output)
        self._on_started({p.name: p.process.pid for p in self._parts if p.process and p.process.returncode is None})
        return output

    async def watch(self) -> None:
        """Copy the logs and restart parts that end by themselves, until cancelled.

        Raises:
            PartFailedError: A part ended more than MAX_RESTARTS times within RESTART_WINDOW seconds.
        """
        async with asyncio.TaskGroup() as group:
            for output in self._outputs:
                group.create_task(self._copy(output), name=f"logs of {output.part.name}")
            for part in self._parts:
                group.create_task(self._keep(part, group), name=f"keep {part.name}")

    async def _keep(self, part: Part, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(first=0.2, maximum=5.0)
        ends: list[float] = []
        while True:
            assert part.process is not None  # noqa: S101 - set by _spawn, for the type checker
            status = await part.process.wait()
            if part.stopping:
                return
            now = loop.time()
            ends = [at for at in ends if now - at < RESTART_WINDOW] + [now]
            log.error(
                "%s ended by itself and is started again", part.name, extra={"part": part.name, "status": status}
            )
            await asyncio.sleep(backoff.next())  # by then its last lines are read
            if len(ends) > MAX_RESTARTS:
                tail = "\n".join(part.last_lines[-8:])
                raise PartFailedError(f"{part.name} ended {len(ends)} times within a minute; its last lines:\n{tail}")
            if not part.stopping:
                group.create_task(self._copy(await self._spawn(part)), name=f"logs of {part.name}")

    async def _copy(self, output: _Output) -> None:
        """Copy log lines until nobody can write any more."""
        while True:
            try:
                line = await output.lines.readline()
            except ValueError:  # longer than MAX_LINE: dropped by the reader
                continue
            if not line:
                break
            text = line.decode("utf-8", "replace").rstrip("\n")
            output.part.last_lines = [*output.part.last_lines[-19:], text]
            self._on_line(text)
        self._close(output)

    def _close(self, output: _Output) -> None:
        output.transport.close()
        self._outputs.remove(output)

    async def stop(self) -> None:
        """Stop every part, the newest first; a part that outlasts its grace is killed. `watch` has ended before."""
        for part in self._parts:
            part.stopping = True
        async with asyncio.TaskGroup() as group:
            # A part that says more at its end than a pipe holds would wait for us for ever.
            copying = [group.create_task(self._copy(output)) for output in self._outputs]
            for part in reversed(self._parts):
                await self._stop(part)
            if copying:
                _, late = await asyncio.wait(copying, timeout=LAST_LINES)
                for task in late:
                    task.cancel()
        for output in list(self._outputs):
            self._close(output)
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
