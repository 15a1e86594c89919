"""A scripted API and a scripted proxy as real servers, and a client that sends exact bytes, for tests of any edge."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE = 10.0


@dataclass
class Message:
    """A head as it stands on the wire; `fields` has each name in lower case with all its values."""

    line: str
    fields: dict[str, list[str]]
    body: bytes = b""

    def one(self, name: str) -> str | None:
        values = self.fields.get(name, [])
        assert len(values) <= 1, f"expected one {name}, got {len(values)}"
        return values[0] if values else None

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def problem(self) -> str:
        assert self.one("content-type") == "application/problem+json"
        return str(json.loads(self.body)["type"]).removeprefix("urn:c2l:problem:")


async def read_head(reader: asyncio.StreamReader) -> Message:
    async with asyncio.timeout(DEADLINE):
        head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    fields: dict[str, list[str]] = {}
    for text in lines:
        name, _, value = text.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return Message(line, fields)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Return the next chunk's data, b"" for the last (its trailers are left to be read as a head)."""
    async with asyncio.timeout(DEADLINE):
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            return b""
        data = await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    return data


async def read_body(reader: asyncio.StreamReader, message: Message, *, bodiless: bool = False) -> None:
    """Read the content into the message, and trailers into its fields as "trailer:name"."""
    if bodiless:
        return
    async with asyncio.timeout(DEADLINE):
        if message.one("transfer-encoding") == "chunked":
            while data := await read_chunk(reader):
                message.body += data
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = line.decode().partition(":")
                message.fields.setdefault(f"trailer:{name.lower()}", []).append(value.strip())
        elif length := message.one("content-length"):
            message.body = await reader.readexactly(int(length))


Script = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ok(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request whole and answer 200 with its target."""
    await read_body(reader, request)
    body = request.target.encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@dataclass
class Scripted:
    """One upstream: every request is recorded, then answered by `script`."""

    path: Path
    script: Script = ok
    requests: list[Message] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection has ended from the other side."""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        # As our own services: a full queue of a Unix socket is no wait but an error.
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), backlog=1024)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                request = await read_head(reader)
                self.requests.append(request)
                await self.script(request, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, asyncio.CancelledError):
            self.closed.set()
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


@dataclass
class ScriptedApi(Scripted):
    """Answers the authorise question from `verdict`, everything else by `script`."""

    verdict: Callable[[Message], bytes] = lambda _: b"HTTP/1.1 500 Unset\r\nContent-Length: 0\r\n\r\n"
    questions: list[Message] = field(default_factory=list)

    async def start(self) -> None:
        others = self.script

        async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if request.target == "/internal/authorize":
                self.requests.remove(request)
                self.questions.append(request)
                writer.write(self.verdict(request))
            else:
                await others(request, reader, writer)

        self.script = script
        await super().start()


def allowed(path: Path) -> bytes:
    """Return the verdict that a request may go to the socket at `path`."""
    fields = f"C2L-Endpoint: unix:{path}\r\nC2L-Assertion: v1.claims.mac"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class EdgeUnderTest:
    """What a test has: the edge's port, and what stands behind it."""

    port: int
    api: ScriptedApi
    proxy: Scripted
    host: str = "localhost"
    _opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from an address of this machine; all of 127.0.0.0/8 are (on Linux)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        self._opened.append(writer)
        return reader, writer

    def abort(self) -> None:
        """Cut every connection that is still open, so that a test that fails leaves none to the next."""
        for writer in self._opened:
            writer.transport.abort()

    def head(self, method: str, target: str, *fields: str, host: str | None = None) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host or self.host}", *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def send(self, data: bytes, *, method: str = "GET", source: str = "127.0.0.1") -> Message:
        """Send exact bytes on a new connection and return the answer."""
        reader, writer = await self.connect(source)
        try:
            writer.write(data)
            answer = await read_head(reader)
            bodiless = method == "HEAD" or answer.status in (101, 204, 304)
            await read_body(reader, answer, bodiless=bodiless)
            return answer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def get(
        self,
        target: str,
        *fields: str,
        method: str = "GET",
        host: str | None = None,
        source: str = "127.0.0.1",
    ) -> Message:
        return await self.send(self.head(method, target, *fields, host=host), method=method, source=source)
