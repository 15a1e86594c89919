"""Records every hop of a cloud: what its sockets carry, what its processes have in memory, its logs and files.

All parts of the cloud speak with each other, with clients and with homes through forwarders that keep what passes.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.support.deployment import Deployment
from tests.support.marks import Search
from tests.support.require import require
from tests.support.stack import wait_for

KEPT = 128 * 1024 * 1024
"""Bytes of all hops together that are kept; a test that sends more has to be changed."""
PIECE = 4 * 1024 * 1024
READ = 256 * 1024
DEADLINE = 10.0

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Wiretap:
    """Forwarders in a thread of their own, and what passed through them."""

    def __init__(self) -> None:
        self.passed: dict[str, bytearray] = {}
        """By hop, both directions."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._thread.start()

    def tcp(self, hop: str, port: int) -> int:
        """Forward to a port of this machine; return the one to connect to instead."""

        async def listen() -> asyncio.Server:
            forward = self._forward(hop, lambda: asyncio.open_connection("127.0.0.1", port))
            return await asyncio.start_server(forward, "127.0.0.1", 0)

        return int(self._listen(listen).sockets[0].getsockname()[1])

    def unix(self, hop: str, target: Path, path: Path) -> None:
        """Listen at a path and forward to the socket at another."""

        async def listen() -> asyncio.Server:
            forward = self._forward(hop, lambda: asyncio.open_unix_connection(str(target)))
            return await asyncio.start_unix_server(forward, str(path))

        self._listen(listen)

    def between(self, hop: str, path: Path) -> None:
        """Step in at the path of a socket that a process listens on already."""
        behind = path.with_name("r.sock")
        path.rename(behind)
        self.unix(hop, behind, path)

    def close(self) -> None:
        """Stop forwarding."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(DEADLINE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def _listen(self, listen: Callable[[], Awaitable[asyncio.Server]]) -> asyncio.Server:
        async def started() -> asyncio.Server:
            server = await listen()
            self._servers.append(server)
            return server

        return asyncio.run_coroutine_threadsafe(started(), self._loop).result(DEADLINE)

    def _forward(self, hop: str, connect: Connect) -> Callable[..., Awaitable[None]]:
        kept = self.passed.setdefault(hop, bytearray())

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(READ):
                if sum(map(len, self.passed.values())) < KEPT:
                    kept.extend(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        async def both(
            near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
            far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        ) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(near[0], far[1]))
                group.create_task(pump(far[0], near[1]))

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            ends = [writer]
            try:
                far = await connect()
                ends.append(far[1])
                await both((reader, writer), far)
            except* (OSError, asyncio.CancelledError):
                pass  # an end that is cut is cut at the other side too
            finally:
                self._connections.discard(task)
                for end in ends:
                    end.transport.abort()

        return forward

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@dataclass
class RecordedDeployment(Deployment):
    """A deployment whose parts reach each other through a wiretap; so do homes, and clients by `clients`."""

    tap: Wiretap = field(default_factory=Wiretap)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def clients(self) -> str:
        """What clients open; a browser's session is for `url` alone."""
        return f"http://127.0.0.1:{self.ports['clients']}"

    @property
    def server(self) -> str:
        """Where homes reach the edge."""
        return f"http://127.0.0.1:{self.ports['homes']}"

    @property
    def state(self) -> str:
        """Where replicas reach Redis."""
        return f"redis://127.0.0.1:{self.ports['redis']}/0"

    def reached(self, name: str) -> Path:
        """Return where other parts reach a replica, or the manager."""
        return self.run / f"t-{name}.sock"

    def start(self, **edge: object) -> None:
        """Start everything, then step in at the proxies that wait for a user."""
        self.ports["clients"] = self.tap.tcp("client - edge", self.port)
        self.ports["homes"] = self.tap.tcp("home - edge", self.port)
        self.ports["redis"] = self.tap.tcp("api - redis", self.redis.port)
        self.tap.unix("api - manager", super().reached("manager"), self.reached("manager"))
        for name in self.names:
            self.tap.unix("edge - api", super().reached(name), self.reached(name))
        super().start(**edge)
        wait_for(self._tap_proxies, within=DEADLINE, what="proxies that wait for a user")

    def stop(self) -> None:
        """Stop everything."""
        super().stop()
        self.tap.close()

    def credential(self, home: str) -> Path:
        """Return where a machine keeps its credential."""
        return self.homes / home / f"127.0.0.1-{self.ports['homes']}.json"

    def _tap_proxies(self) -> bool:
        paths = [Path(self.run, "proxies", each["id"], "http.sock") for each in self._instances()]
        for path in paths:
            if not path.with_name("r.sock").exists():
                self.tap.between("edge - proxy", path)
        return bool(paths)

    def _instances(self) -> list[dict[str, str]]:
        records = self.run.glob("proxies/*/instance.json")
        return [json.loads(record.read_text()) for record in records]

    def processes(self) -> dict[str, psutil.Process]:
        """The cloud's processes by name, with all that they started."""
        found: dict[str, psutil.Process] = {}
        proxies = {int(each["pid"]): f"proxy {each['id']}" for each in self._instances()}
        for name, part in self.parts.items():
            if name == "edge" or name.startswith(("api-", "manager")):
                process = psutil.Process(part.process.pid)
                found[name] = process
                for child in process.children(recursive=True):
                    found[proxies.get(child.pid, f"child {child.pid} of {name}")] = child
        return found


# --- memory ---


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield what a process has in memory that is its own: every writable and every anonymous mapping.

    Raises:
        PermissionError: This process may not read it.
    """
    with Path(f"/proc/{pid}/maps").open() as lines:
        mappings = [line.split(maxsplit=5) for line in lines]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - Path.open buffers
        for span, access, _, _, inode, *name in mappings:
            own = access[0] == "r" and (access[1] == "w" or inode == "0")
            if not own or "".join(name).startswith("[v"):  # the kernel's
                continue
            begin, end = (int(edge, 16) for edge in span.split("-"))
            for at in range(begin, end, PIECE):
                with contextlib.suppress(OSError, ValueError):  # it may have been given back meanwhile
                    memory.seek(at)
                    yield memory.read(min(PIECE, end - at))


def may_read_memory(pid: int) -> bool:
    """Tell whether this process may read that of another."""
    try:
        Path(f"/proc/{pid}/mem").open("rb").close()
    except PermissionError:
        return False
    return True


@dataclass
class Findings:
    """Which marks were found where."""

    wire: dict[str, set[str]]
    """By hop."""
    passed: dict[str, int]
    """Bytes by hop."""
    memory: dict[str, set[str]]
    """By process; of all looks together."""
    read: dict[str, int]
    """Bytes of memory that were looked through, by process."""
    disk: dict[str, set[str]]
    """By file: logs, state, audit, Redis."""


class Recorder:
    """Looks for marks everywhere in a cloud."""

    def __init__(self, deployment: RecordedDeployment, search: Search) -> None:
        self.search = search
        self._deployment = deployment
        self._memory: dict[str, set[str]] = {}
        self._read: dict[str, int] = {}

    def look_into_memory(self) -> None:
        """Look through the memory of all processes as it is now."""
        processes = {name: process.pid for name, process in self._deployment.processes().items()}
        for name, pid in {**processes, "redis": self._deployment.redis.pid}.items():
            require(may_read_memory(pid), "the right to read processes' memory", "set kernel.yama.ptrace_scope to 0")
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self._memory.setdefault(name, set()).update(self.search.in_pieces(self._counted(name, pid)))

    def sees(self, mark: str, part: str) -> bool:
        """Look into memory, and tell whether a part of the cloud has a mark there."""
        self.look_into_memory()
        return any(mark in marks for name, marks in self._memory.items() if name.partition(" ")[0] == part)

    def findings(self) -> Findings:
        """Return what was found, and begin anew with sockets and memory."""
        passed = {hop: bytes(each) for hop, each in self._deployment.tap.passed.items()}
        assert sum(map(len, passed.values())) < KEPT, "expected all that passed to be kept"
        root = self._deployment.root
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        found = Findings(
            {hop: self.search.in_data(each) | self.search.in_masked(each) for hop, each in passed.items()},
            {hop: len(each) for hop, each in passed.items()},
            self._memory,
            self._read,
            {path.relative_to(root).as_posix(): self.search.in_data(path.read_bytes()) for path in files},
        )
        self._memory, self._read = {}, {}
        for each in self._deployment.tap.passed.values():
            each.clear()
        return found

    def _counted(self, name: str, pid: int) -> Iterator[bytes]:
        for piece in memory_of(pid):
            self._read[name] = self._read.get(name, 0) + len(piece)
            yield piece
