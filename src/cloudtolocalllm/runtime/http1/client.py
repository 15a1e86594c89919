"""The client side: connections, exchanges with callbacks, a keep-alive pool, and `fetch` for small requests."""

import asyncio
import contextlib
import ssl
from typing import Protocol

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.http1._client_connection import Connection
from cloudtolocalllm.runtime.http1.errors import BadResponseError, ConnectError
from cloudtolocalllm.runtime.http1.messages import (
    DEFAULT_LIMITS,
    NO_BODY,
    Body,
    BodyKind,
    Headers,
    HttpLimits,
    Response,
)

__all__ = ["Connection", "Exchange", "Pool", "ResponseHandler", "fetch"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 §9.2.2."""


class ResponseHandler(Protocol):
    """What a caller provides for one exchange. Methods must not block; they run on the loop's thread."""

    def on_informational(self, status: int, headers: Headers) -> None:
        """A 1xx response came."""

    def on_head(self, status: int, headers: Headers, body: Body) -> None:
        """The final head came."""

    def on_body(self, data: bytes) -> None:
        """Content came."""

    def on_end(self, trailers: Headers) -> None:
        """The response is complete."""

    def on_error(self, error: Exception) -> None:
        """The exchange failed (BadResponseError, connection lost); nothing more is called."""

    def on_writable(self, writable: bool) -> None:
        """The transport's buffer went over its high-water mark (False) or below its low one (True)."""


class Exchange(Protocol):
    """One request that is under way."""

    def write(self, data: bytes) -> None:
        """Send content of the request."""

    def end(self, trailers: Headers = ()) -> None:
        """Complete the request."""

    def abort(self) -> None:
        """Close the connection at once; the handler is not called again."""

    def pause_body(self) -> None:
        """Stop reading the response's content."""

    def resume_body(self) -> None:
        """Read on."""

    def takeover(self) -> tuple[asyncio.Transport, bytes]:
        """Take the connection over after `on_head` came with status 101: the transport, and bytes behind the head.

        Until then nothing is read. The caller sets the transport's protocol before it returns to the loop; this
        connection calls nothing any more. The transport is reading.

        Raises:
            LocalError: The status was not 101, or the connection is gone.
        """
        ...


class Connector(Protocol):
    """What gives connections: a `Pool`, or several of them."""

    @property
    def host(self) -> bytes:
        """A value for Host."""
        ...

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """As `Pool.acquire`."""
        ...


class Pool:
    """Kept-alive connections to one endpoint, bounded in number and idle time."""

    def __init__(
        self,
        endpoint: str,
        *,
        max_idle: int = 16,
        idle_timeout: float = 30.0,
        connect_timeout: float = 5.0,
        limits: HttpLimits | None = None,
        tls: bool = False,
    ) -> None:
        """Make an empty pool.

        Args:
            endpoint: "unix:/path" or "host:port".
            max_idle: Idle connections kept.
            idle_timeout: Seconds an idle connection is kept.
            connect_timeout: Seconds.
            limits: None for the defaults.
            tls: Whether to speak TLS (system trust store).
        """
        self._endpoint = Endpoint.parse(endpoint)
        self._max_idle = max_idle
        self._idle_timeout = idle_timeout
        self._connect_timeout = connect_timeout
        self._limits = limits or DEFAULT_LIMITS
        self._tls = ssl.create_default_context() if tls else None
        self._idle: list[Connection] = []
        self._closed = False
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def host(self) -> bytes:
        """A value for Host: the address, or "localhost" for a Unix socket."""
        return b"localhost" if self._endpoint.path is not None else str(self._endpoint).encode()

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle)

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Return an idle connection or a new one; it comes back by itself when its exchange ends reusable.

        Args:
            fresh: Whether it must be new.

        Raises:
            ConnectError: No connection within the deadline.
        """
        while self._idle and not fresh:
            connection = self._idle.pop()  # the one used last: it is the least likely to have been closed
            if connection.reusable:
                return connection
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._connect()
        except (OSError, TimeoutError) as error:
            reason = "none in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise ConnectError(f"expected a connection, got {reason}") from error
        connection.on_idle = self._put_back
        connection.on_lost = self._forget
        return connection

    async def close(self) -> None:
        """Close the idle connections; those in use close when their exchange ends."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self._idle.pop().close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        made = Connection(self._limits)
        if self._endpoint.path is not None:
            await loop.create_unix_connection(lambda: made, self._endpoint.path)
        elif self._endpoint.host is not None and self._endpoint.port is not None:
            await loop.create_connection(lambda: made, self._endpoint.host, self._endpoint.port, ssl=self._tls)
        return made

    def _put_back(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(self._idle_timeout, self._reap)

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):  # it was in use
            self._idle.remove(connection)

    def _reap(self) -> None:
        """Close what was idle for too long; the list is ordered by the time it was put back."""
        loop = asyncio.get_running_loop()
        self._reaper = None
        oldest_kept = loop.time() - self._idle_timeout
        while self._idle and self._idle[0].idle_since <= oldest_kept:
            self._idle.pop(0).close()
        if self._idle:
            self._reaper = loop.call_at(self._idle[0].idle_since + self._idle_timeout, self._reap)


class _Collector:
    """Takes a whole small response."""

    __slots__ = ("_exchange", "_head", "_left", "_parts", "done")

    def __init__(self, max_content: int) -> None:
        self.done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._exchange: Exchange | None = None
        self._left = max_content
        self._parts: list[bytes] = []
        self._head: tuple[int, Headers] = (0, ())

    def follow(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_informational(self, status: int, headers: Headers) -> None:
        pass

    def on_head(self, status: int, headers: Headers, body: Body) -> None:
        self._head = (status, headers)
        if status == 101:
            self._give_up(BadResponseError("expected no switch of protocols"))

    def on_body(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._give_up(BadResponseError("expected a shorter response"))
        else:
            self._parts.append(data)

    def on_end(self, trailers: Headers) -> None:
        if not self.done.done():
            self.done.set_result(Response(*self._head, b"".join(self._parts)))

    def on_error(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def on_writable(self, writable: bool) -> None:
        pass

    def _give_up(self, error: Exception) -> None:
        if self._exchange is not None:
            self._exchange.abort()
        self.on_error(error)


async def fetch(
    pool: Connector,
    method: str,
    target: str,
    headers: Headers = (),
    content: bytes = b"",
    *,
    timeout: float,
    max_content: int = 4 * 1024 * 1024,
) -> Response:
    """Make one small request and return its whole response.

    A request on a reused connection that the server closed before answering is tried once more on a new one
    when its method is idempotent.

    Raises:
        ConnectError: No connection.
        BadResponseError: Malformed, cut short, or longer than `max_content`.
        TimeoutError: No whole response within `timeout` seconds.
    """
    async with asyncio.timeout(timeout):
        try:
            return await _attempt(pool, method, target, headers, content, max_content, fresh=False)
        except BadResponseError as error:
            if not error.retryable or method not in IDEMPOTENT:
                raise
        return await _attempt(pool, method, target, headers, content, max_content, fresh=True)


async def _attempt(
    pool: Connector, method: str, target: str, headers: Headers, content: bytes, max_content: int, *, fresh: bool
) -> Response:
    if not any(name == b"host" for name, _ in headers):
        headers = ((b"host", pool.host), *headers)
    connection = await pool.acquire(fresh=fresh)
    collector = _Collector(max_content)
    body = Body(BodyKind.LENGTH, len(content)) if content else NO_BODY
    exchange = connection.request(method, target, headers, body, collector)
    collector.follow(exchange)
    try:
        exchange.write(content)
        exchange.end()
        return await collector.done
    finally:
        exchange.abort()  # without effect when it is over
