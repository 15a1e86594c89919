"""A small HTTP/1.1 client for measuring: callbacks, httptools, no pool, nothing of the package under test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send a request, and which."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    unix: str = ""
    """A socket's path; "" for TCP."""
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    content: str = ""

    @classmethod
    def at(cls, name: str, url: str, content: str = "", headers: dict[str, str] | None = None) -> "Target":
        """Return a target for a URL."""
        parts = urlsplit(url)
        port = parts.port or 80
        return cls(name, parts.hostname or "127.0.0.1", port, path=parts.path, headers=headers or {}, content=content)

    @property
    def message(self) -> bytes:
        """The request as bytes."""
        method = "POST" if self.content else "GET"
        host = "localhost" if self.unix else f"{self.host}:{self.port}"
        lines = [f"{method} {self.path} HTTP/1.1", f"host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        content = self.content.encode()
        if content:
            lines += ["content-type: application/json", f"content-length: {len(content)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


class Client(asyncio.Protocol):
    """One connection; `send`, then the callbacks, then `send` again."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made, before any use
        self.status = 0
        self.on_data: Callable[[bytes], None] = _ignore
        self.on_done: Callable[[Exception | None], None] = _ignore
        self._parser: Any = None
        self._busy = False

    @classmethod
    async def connect(cls, target: Target) -> "Client":
        """Return a connected client.

        Raises:
            OSError: Nothing listens there.
            TimeoutError: No connection within CONNECT_TIMEOUT.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if target.unix:
                _, client = await loop.create_unix_connection(cls, target.unix)
            else:
                _, client = await loop.create_connection(cls, target.host, target.port)
        return client

    def send(
        self, message: bytes, on_data: Callable[[bytes], None], on_done: Callable[[Exception | None], None]
    ) -> None:
        """Send a request.

        Args:
            message: Its bytes.
            on_data: Called with each piece of the response's content.
            on_done: Called once at its end, with None or what went wrong.
        """
        self.status = 0
        self.on_data, self.on_done = on_data, on_done
        self._parser = httptools.HttpResponseParser(self)
        self._busy = True
        self.transport.write(message)

    async def fetch(self, message: bytes, timeout: float = 30.0) -> tuple[int, bytes]:
        """Send a request and return the status and the whole content."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parts: list[bytes] = []
        self.send(message, parts.append, lambda error: _settle(done, error))
        async with asyncio.timeout(timeout):
            await done
        return self.status, b"".join(parts)

    def close(self) -> None:
        """Go away at once."""
        self._busy = False
        self.transport.abort()

    # --- asyncio and httptools ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._busy:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                self._finish(error)
                self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy:
            self._finish(error or ConnectionError("expected the response's end, but the connection was closed"))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.on_data(data)

    def on_message_complete(self) -> None:
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        self._busy = False
        self.on_done(error)


def _ignore(_value: object) -> None:
    pass


def _settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
