"""The server side: one asyncio protocol a connection, callbacks a request."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from cloudtolocalllm.runtime.http1.messages import Body, Headers, HttpLimits, Request


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

        The caller sets the transport's protocol; this connection calls nothing any more.
        """
        ...

    @property
    def peer(self) -> str:
        """The client's address, "" for a Unix socket."""
        ...


App = Callable[[Request, Responder], RequestHandler]
"""Takes a request when its head is complete."""


class HttpServer:
    """Listens and serves; drains on close."""

    def __init__(self, app: App, *, limits: HttpLimits | None = None) -> None:
        """Make a server that does not listen yet."""
        raise NotImplementedError

    async def listen_tcp(self, host: str, port: int) -> int:
        """Listen on TCP and return the port (for port 0, the one that was chosen)."""
        raise NotImplementedError

    async def listen_unix(self, path: str) -> None:
        """Listen on a Unix socket, mode 0600; a stale socket file is replaced."""
        raise NotImplementedError

    @property
    def connections(self) -> int:
        """Open connections."""
        raise NotImplementedError

    async def close(self, grace: float) -> None:
        """Stop accepting, close idle connections, wait up to `grace` seconds for requests, then abort."""
        raise NotImplementedError
