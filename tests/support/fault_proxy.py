"""A TCP proxy that breaks, delays and reshapes what passes, under a test's control."""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from typing import Literal, Self

from tests.support.ports import free_port

from cloudtolocalllm.runtime.tasks import TaskSet

READ_SIZE = 64 * 1024
QUEUED_CHUNKS = 64
"""Chunks delayed at once in one direction; reading stops there."""

Side = Literal["both", "client", "server"]


@dataclass(slots=True)
class Direction:
    """What happens to bytes that go one way; may be changed at any time."""

    latency: float = 0.0
    """Seconds."""
    jitter: float = 0.0
    """Seconds at most on top of it, at random; the order stays, as TCP has it."""
    bytes_per_second: float = 0.0
    """0 for no limit."""
    segment: int = 0
    """Bytes at most in one write; 0 for as they came."""
    merge: float = 0.0
    """Seconds for which bytes are gathered and then written at once."""
    stalled: bool = False
    """Nothing is passed on, and nothing more is read: the sender's buffers fill."""
    blackhole: bool = False
    """Everything is read and thrown away; the connections stay open."""
    passed: int = 0
    """Bytes passed on so far."""


class FaultProxy:
    """Listens on a port of its own and passes connections on to a target.

    Use as `async with FaultProxy(host, port) as proxy`. `up` is from the client to the target, `down` back.
    """

    def __init__(self, host: str, port: int, *, seed: int = 1) -> None:
        self._target = (host, port)
        self._random = random.Random(seed)
        self._links: set[_Link] = set()
        self._tasks = TaskSet()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.up = Direction()
        self.down = Direction()
        self.refusing = False
        """Close new connections at once."""
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self.port = free_port()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut("rst")
        await self._tasks.close()
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """Connections that are passed on now."""
        return len(self._links)

    def cut(self, how: Literal["rst", "fin"] = "rst", side: Side = "both") -> int:
        """End every connection now; what was on its way is lost.

        Args:
            how: A reset, or an orderly end.
            side: Which side notices. With "client" the target keeps a half-dead connection, on which what was
                delayed still arrives: late, after the client may have made a new one.

        Returns:
            How many there were.
        """
        links = list(self._links)
        for link in links:
            link.cut(how, side)
        return len(links)

    def release(self) -> None:
        """End all halves that `cut` on one side left."""
        for link in list(self._links):
            link.cut("fin", "both")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _end(writer, "rst")
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _end(writer, "rst")
            return
        link = _Link(self, reader, writer, far_reader, far_writer)
        self._links.add(link)
        try:
            self._tasks.start(link.run(self._random), "link").add_done_callback(lambda _: self._links.discard(link))
        except RuntimeError:
            link.cut("rst", "both")


class _Link:
    """One connection and its other half."""

    def __init__(
        self,
        proxy: FaultProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        self._ways = ((reader, far_writer, proxy.up), (far_reader, writer, proxy.down))
        self._writers = {"client": writer, "server": far_writer}
        self._cut: set[str] = set()

    def cut(self, how: Literal["rst", "fin"], side: Side) -> None:
        for name, writer in self._writers.items():
            if side in ("both", name):
                self._cut.add(name)
                _end(writer, how)

    async def run(self, rng: random.Random) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for reader, writer, way in self._ways:
                    group.create_task(self._pump(reader, writer, way, rng))
        except* (OSError, asyncio.IncompleteReadError):
            if len(self._cut) != 1:  # a half that was left alive on purpose stays
                self.cut("rst", "both")
        finally:
            for writer in self._writers.values():
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction, rng: random.Random
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, queue, way, rng))
            group.create_task(self._write(writer, queue, way))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        queue: "asyncio.Queue[tuple[float, bytes]]",
        way: Direction,
        rng: random.Random,
    ) -> None:
        now = asyncio.get_running_loop().time
        due = 0.0
        while True:
            while way.stalled:  # noqa: ASYNC110 - a plain attribute is what a test flips
                await asyncio.sleep(0.005)
            try:
                data = await reader.read(READ_SIZE)
            except OSError:
                if len(self._cut) == 1:
                    return  # what is queued for the other side still goes there
                raise
            if way.blackhole and data:
                continue
            due = max(due, now() + way.latency + rng.uniform(0, way.jitter))
            await queue.put((due, data))
            if not data:
                return

    async def _write(
        self, writer: asyncio.StreamWriter, queue: "asyncio.Queue[tuple[float, bytes]]", way: Direction
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, data = await queue.get()
            if due > now():
                await asyncio.sleep(due - now())
            if way.merge and data:
                await asyncio.sleep(way.merge)
                while not queue.empty() and data:
                    _, more = queue.get_nowait()
                    if not more:
                        queue.put_nowait((0.0, b""))
                        break
                    data += more
            if not data:
                if not self._cut and writer.can_write_eof():
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                return
            await _send(writer, data, way)


async def _send(writer: asyncio.StreamWriter, data: bytes, way: Direction) -> None:
    size = way.segment or len(data)
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        if writer.is_closing():
            return
        writer.write(piece)
        way.passed += len(piece)
        await writer.drain()
        if way.bytes_per_second:
            await asyncio.sleep(len(piece) / way.bytes_per_second)
        elif way.segment:
            await asyncio.sleep(0)  # let each segment leave by itself


def _end(writer: asyncio.StreamWriter, how: Literal["rst", "fin"]) -> None:
    transport = writer.transport
    if how == "rst":
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            # Linger on with no time: close() sends a reset (POSIX SO_LINGER).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        writer.close()
