"""The server side: one asyncio protocol a connection, callbacks a request."""

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Protocol

from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1._encode import head, status_line
from cloudtolocalllm.runtime.http1._server_connection import ServerConnection
from cloudtolocalllm.runtime.http1.messages import DEFAULT_LIMITS, Body, Headers, HttpLimits, Request

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class RequestHandler(Protocol):
    """What an application provides for one request. Methods must not block; they run on the loop's thread."""

    def on_body(self, data: bytes) -> None:
        """Bytes of the request's content."""

    def on_body_end(self, trailers: Headers) -> None:
        """The request is complete (also called, at once, for a request without content)."""

    def on_disconnect(self) -> None:
        """The client went away before the response ended; nothing more is called."""

    def on_writable(self, writable: bool) -> None:
        """The transport's buffer went over its high-water mark (False) or below its low one (True)."""


class Responder(Protocol):
    """How an application answers one request."""

    def inform(self, status: int, headers: Headers) -> None:
        """Send an informational response (1xx); not to HTTP/1.0 clients, where it has no effect."""

    def start(self, status: int, headers: Headers, body: Body) -> None:
        """Send the final head. Framing fields are written from `body`, never taken from `headers`.

        A response to HEAD, and 204 and 304, keep a Content-Length that describes the content but send none.
        """

    def write(self, data: bytes) -> None:
        """Send content."""

    def end(self, trailers: Headers = ()) -> None:
        """Complete the response; trailers are sent only when the body is chunked."""

    def abort(self) -> None:
        """Break the response off so that the client sees it was cut short: the connection is closed."""

    def respond(self, status: int, headers: Headers, content: bytes) -> None:
        """Send a whole response."""

    def pause_body(self) -> None:
        """Stop reading the request's content."""

    def resume_body(self) -> None:
        """Read on."""

    def hijack(self) -> tuple[asyncio.Transport, bytes]:
        """Take the connection over after an upgrade request: the transport, and bytes read past the head.

        The caller sets the transport's protocol before it returns to the loop; this connection calls nothing any
        more. The transport is reading.

        Raises:
            LocalError: It is no upgrade request, it was answered, or the client is gone.
        """
        ...

    @property
    def peer(self) -> str:
        """The client's address, "" for a Unix socket."""
        ...


class Gate(Protocol):
    """Decides about connections as they come; made for the one server that faces the world."""

    def opened(self, peer: str) -> bool:
        """Count a connection from this address and return whether it is to be served."""
        ...

    def refusal(self, peer: str) -> tuple[int, Headers, bytes] | None:
        """Return what a connection that is not served is told, as `Responder.respond` takes it; None for nothing."""
        ...

    def closed(self, peer: str) -> None:
        """A connection that was counted is gone. Whoever hijacks one calls this himself when it ends."""


App = Callable[[Request, Responder], RequestHandler]
"""Takes a request when its head is complete."""


def switching_protocols(headers: Headers) -> bytes:
    """Return the head of a 101 response, for whoever hijacked a connection to write.

    Args:
        headers: With Connection and Upgrade.

    Raises:
        LocalError: A field has a line end or NUL in it.
    """
    return head(status_line(101), headers, b"")


class HttpServer:
    """Listens and serves; drains on close."""

    def __init__(
        self,
        app: App,
        *,
        limits: HttpLimits | None = None,
        error_headers: Headers = (),
        clock: Clock | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            app: Called for each request.
            limits: None for the defaults.
            error_headers: Fields of the answers that the server itself gives (malformed requests, faults of `app`).
            clock: For the Date field; None for the system's.
            gate: Decides which connections are served; None for all.
        """
        self.app = app
        self.limits = limits or DEFAULT_LIMITS
        self.error_headers = error_headers
        self.gate = gate
        self.draining = False
        self.connections_open: set[ServerConnection] = set()
        self._clock = clock or SystemClock()
        self._date = (0, b"")
        self._listeners: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._empty = asyncio.Event()

    async def listen_tcp(self, host: str, port: int) -> int:
        """Listen on TCP and return the port (for port 0, the one that was chosen)."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: ServerConnection(self), host, port, backlog=1024)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def listen_socket(self, sock: socket.socket) -> None:
        """Listen on a TCP socket that is bound; it is closed with this server."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(lambda: ServerConnection(self), sock=sock, backlog=1024))

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket, mode 0600; a stale socket file is replaced."""
        sock = _bound(path)
        try:
            loop = asyncio.get_running_loop()
            listener = await loop.create_unix_server(lambda: ServerConnection(self), sock=sock, backlog=1024)
        except BaseException:
            sock.close()
            raise
        self._listeners.append(listener)
        self._paths.append(path)

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self.connections_open)

    def date_line(self) -> bytes:
        """Return the Date field line, made anew each second."""
        now = int(self._clock.wall())
        if now != self._date[0]:
            self._date = (now, f"date: {_imf_fixdate(now)}\r\n".encode())
        return self._date[1]

    def left(self) -> None:
        """A connection is gone from `connections_open`."""
        if not self.connections_open:
            self._empty.set()

    async def close(self, grace: float) -> None:
        """Stop accepting, close idle connections, wait up to `grace` seconds for requests, then abort."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - as in _bound
        for connection in list(self.connections_open):
            if connection.exchange is None:
                connection.close()
        await self._until_empty(grace)
        for connection in list(self.connections_open):
            connection.abort()
        await self._until_empty(1.0)

    async def _until_empty(self, seconds: float) -> None:
        self._empty.clear()
        if self.connections_open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)


def _bound(path: str) -> socket.socket:
    # Plain system calls: pathlib would cost each forked proxy some thirty pages of its own.
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - as above
            os.unlink(path)  # noqa: PTH108 - as above
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101 - as above; before listen(): nobody connects in between
    except BaseException:
        sock.close()
        raise
    return sock


def _imf_fixdate(now: int) -> str:
    """Return a time as RFC 9110 §5.6.7 writes it. By hand: `email.utils` would take 0.2 MB of each proxy."""
    at = time.gmtime(now)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year:04} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
