"""An engine over real HTTP whose every byte a test decides; for faults that a well-behaved engine does not have."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request as the engine got it, and the means to answer it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    writer: asyncio.StreamWriter
    body: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection."""

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def head(self, status: int, *fields: str, chunked: bool = False) -> None:
        lines = [f"HTTP/1.1 {status} X", *fields, *(["transfer-encoding: chunked"] if chunked else [])]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def last_chunk(self) -> None:
        self.send(b"0\r\n\r\n")

    def json(self, value: Any, status: int = 200, *fields: str) -> None:
        content = json.dumps(value).encode()
        self.head(status, "content-type: application/json", f"content-length: {len(content)}", *fields)
        self.send(content)


Answer = Callable[[Asked], Awaitable[None]]


@dataclass
class ScriptedEngine:
    """A running engine. Health questions are answered by `kind` and `models`, everything else by `answer`."""

    models: list[str] = field(default_factory=lambda: ["tiny"])
    kind: str = "openai"
    loaded: list[str] = field(default_factory=list)
    version: str = "0.20.0"
    health: int = 200
    answer: Answer | None = None
    asked: list[Asked] = field(default_factory=list)
    """Requests that were not about health."""
    port: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await _read(reader, writer)) is not None:
                await self._answer(asked, reader)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        if self._answer_health(asked):
            return
        self.asked.append(asked)
        watch = asyncio.create_task(_watch(reader, asked))
        try:
            if self.answer is None:
                asked.json({"ok": True})
            else:
                await self.answer(asked)
        except OSError:
            asked.gone.set()  # writing has told of it before reading could
            raise
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    def _answer_health(self, asked: Asked) -> bool:
        if asked.method != "GET":
            return False
        if asked.target == "/api/version" and self.kind == "ollama":
            asked.json({"version": self.version})
        elif asked.target == "/api/tags" and self.kind == "ollama":
            asked.json({"models": [{"name": name, "model": name} for name in self.models]})
        elif asked.target == "/api/ps" and self.kind == "ollama":
            asked.json({"models": [{"name": name, "model": name} for name in self.loaded]})
        elif asked.target == "/v1/models" and self.health == 200:
            asked.json({"object": "list", "data": [{"id": name} for name in self.models]})
        elif asked.target in ("/v1/models", "/health") and self.health == 503:
            asked.json({"error": {"code": 503, "message": "Loading model"}}, 503)
        elif asked.target in ("/health", "/api/version", "/api/tags", "/api/ps"):
            asked.json({}, 404)
        else:
            return False
        return True


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked | None:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    asked = Asked(method, target, headers, writer)
    if (length := asked.field("content-length")) is not None:
        asked.body = await reader.readexactly(int(length))
    elif asked.field("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            asked.body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return asked


async def _watch(reader: asyncio.StreamReader, asked: Asked) -> None:
    """Nothing comes after a request until its answer is complete, so the next read tells of the connection's end."""
    try:
        await reader.read(1)
    except OSError:
        pass
    finally:
        if not asyncio.current_task().cancelling():  # type: ignore[union-attr] # it runs in a task
            asked.gone.set()


@asynccontextmanager
async def scripted_engine(**settings: Any) -> AsyncGenerator[ScriptedEngine]:
    """Run an engine on a free port."""
    engine = ScriptedEngine(**settings)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):  # asyncio's server would log it
            await engine.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", engine.port)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
