"""The way to one server: requests of which it sees the outside only."""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.refusals import MAX_PROBLEM
from cloudtolocalllm.connect.watch import Watch
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Body, BodyKind, ConnectError, Exchange, Headers, HttpError, LocalError, Pool
from cloudtolocalllm.runtime.http1 import Response as HttpResponse
from cloudtolocalllm.runtime.http1.messages import NO_BODY, HttpLimits

BUFFERED: Final = 256 * 1024
"""Bytes of an answer that wait here for a slow reader, after which its connection is not read."""
CONNECT_TIMEOUT: Final = 4.0
"""Seconds; four lost packets of a handshake."""
IDLE: Final = 8.0
"""Seconds a connection is kept for the next request: short, as a network may be gone without a word."""
SMALL_TIMEOUT: Final = 15.0
"""Seconds for a small answer."""
STUCK: Final = 300.0
"""Seconds in which a server must take something of a request; at home one may wait for its turn that long."""
HEALTH: Final = "/healthz"
_SILENT: Final = "The server does not answer; see that this computer has a network and that the URL is right."
_UNTRUSTED: Final = "The server shows a certificate that this computer does not trust; is a network in between?"
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 5), ("TCP_KEEPALIVE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3))
"""Options of tcp(7) by the names that systems give them: a dead peer shows after some 15 s."""


class Arrival:
    """One answer as it comes. A broken connection is an error of the next `read`."""

    def __init__(self, clock: Clock, local: str = "") -> None:
        """Expect an answer.

        Args:
            clock: For how long nothing came.
            local: This computer's address on the connection.
        """
        self.local = local
        self.heard = clock.monotonic()
        """When something came last."""
        self.status = 0
        """0 until the head came."""
        self.headers: Headers = ()
        self._clock = clock
        self._exchange: Exchange | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: HomeError | None = None
        self._moved = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.on_closed: Callable[[], None] | None = None

    def follow(self, exchange: Exchange) -> None:
        """Take note of the exchange whose answer this is."""
        self._exchange = exchange

    # --- for the reader ---

    async def head(self) -> int:
        """Wait for the head, and return its status.

        Raises:
            HomeError: The connection broke.
        """
        while not self.status:
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """Return what has come of the content, or wait for it; b"" at its end.

        Raises:
            HomeError: The connection broke, or the content was cut short.
        """
        while not self._pieces:
            if self._ended:
                return b""
            await self._wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused and self._exchange is not None:
            self._paused = False
            self._exchange.resume_body()
        return data

    async def send(self, pieces: Iterable[bytes]) -> None:
        """Send the request's content, as fast as it is taken; stop when an answer comes before its end.

        Raises:
            HomeError: Nothing of it was taken for long.
        """
        exchange = self._exchange
        if exchange is None:
            return
        for piece in pieces:
            try:
                async with asyncio.timeout(STUCK):
                    await self._writable.wait()
            except TimeoutError:
                raise HomeError(Fault.LOST, Problem.TIMED_OUT, "The server takes no more of the request.") from None
            if self.status or self._error is not None:
                return
            exchange.write(piece)
        exchange.end()

    def close(self) -> None:
        """Let go of the connection; one whose answer was read to its end is kept for the next request."""
        if self._exchange is not None:
            self._exchange.abort()
        if self.on_closed is not None:
            self.on_closed()
            self.on_closed = None

    def break_off(self, why: str) -> None:
        """Take the connection for broken."""
        self._fail(HomeError(Fault.LOST, Problem.BRIDGE_OFFLINE, f"The connection to the server was lost: {why}."))
        if self._exchange is not None:
            self._exchange.abort()

    async def _wait(self) -> None:
        self._check()
        self._moved.clear()
        await self._moved.wait()
        if not self._pieces:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, error: HomeError) -> None:
        if self._error is None and not self._ended:
            self._error = error
        self._moved.set()
        self._writable.set()

    def _heard(self) -> None:
        self.heard = self._clock.monotonic()
        self._moved.set()

    # --- runtime.http1.ResponseHandler ---

    def on_informational(self, status: int, headers: Headers) -> None:
        """Not wanted."""

    def on_head(self, status: int, headers: Headers, body: Body) -> None:
        """The head came."""
        self.status, self.headers = status, headers
        self._writable.set()
        self._heard()

    def on_body(self, data: bytes) -> None:
        """Content came."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > BUFFERED and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause_body()
        self._heard()

    def on_end(self, trailers: Headers) -> None:
        """The content is complete."""
        self._ended = True
        self._heard()

    def on_error(self, error: Exception) -> None:
        """The connection broke."""
        detail = "The connection to the server was lost."
        self._fail(HomeError(Fault.LOST, Problem.BRIDGE_OFFLINE, detail))

    def on_writable(self, writable: bool) -> None:
        """The connection's buffer filled or emptied."""
        if writable:
            self._writable.set()
        else:
            self._writable.clear()


class ServerLink:
    """Makes requests to one server, with an API key."""

    def __init__(self, address: ServerAddress, key: str, watch: Watch, clock: Clock) -> None:
        """Make one that has not connected.

        Args:
            address: The server's.
            key: The API key; visible ASCII.
            watch: Over the connections whose answers take long.
            clock: For that.
        """
        self.address = address
        self.use_key(key)
        self._clock = clock
        self._watch = watch
        watch.probe_by(self._probe)
        limits = HttpLimits(max_fields=200)
        self._pool = Pool(
            address.endpoint, idle_timeout=IDLE, connect_timeout=CONNECT_TIMEOUT, tls=address.tls, limits=limits
        )

    def use_key(self, key: str) -> None:
        """Send another API key from now on."""
        self._authorization = b"Bearer " + key.encode("ascii")

    async def open(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        content: Iterable[bytes] = (),
        size: int = 0,
        *,
        fresh: bool = False,
    ) -> Arrival:
        """Send a request, and return its answer as it comes. The caller closes it.

        Args:
            method: HTTP method.
            target: Path below the server's own.
            headers: Besides Host and Authorization.
            content: In pieces.
            size: Bytes of it in all.
            fresh: Whether the connection must be a new one.

        Raises:
            HomeError: It could not be sent, or not to its end.
        """
        fields = ((b"host", self.address.authority.encode()), (b"authorization", self._authorization), *headers)
        try:
            connection = await self._pool.acquire(fresh=fresh)
            arrival = Arrival(self._clock, _prepare(connection.transport))
            body = Body(BodyKind.LENGTH, size) if size else NO_BODY
            exchange = connection.request(method, self.address.prefix + target, fields, body, arrival)
        except (ConnectError, LocalError, OSError, TimeoutError) as error:
            detail = _UNTRUSTED if isinstance(error.__cause__, ssl.SSLCertVerificationError) else _SILENT
            raise HomeError(Fault.NOT_SENT, Problem.BRIDGE_OFFLINE, detail) from None
        arrival.follow(exchange)
        arrival.on_closed = self._watch.add(arrival)
        try:
            await arrival.send(content)
        except BaseException:
            arrival.close()
            raise
        return arrival

    async def fetch(self, method: str, target: str, headers: Headers = (), *, fresh: bool = False) -> HttpResponse:
        """Make a request whose whole answer is small.

        Raises:
            HomeError: No answer, or not in time.
        """
        arrival: Arrival | None = None
        try:
            async with asyncio.timeout(SMALL_TIMEOUT):
                arrival = await self.open(method, target, headers, fresh=fresh)
                status = await arrival.head()
                return HttpResponse(status, arrival.headers, await read_small(arrival))
        except TimeoutError:
            raise HomeError(Fault.LOST, Problem.TIMED_OUT, "The server gave no answer in time.") from None
        finally:
            if arrival is not None:
                arrival.close()

    async def close(self) -> None:
        """Close the connections that wait."""
        await self._pool.close()

    async def _probe(self, timeout: float) -> str | None:
        """Ask the server for a sign of life on a new connection; return our address on it, None without an answer."""
        arrival = Arrival(self._clock)
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(timeout):
                connection = await self._pool.acquire(fresh=True)
                arrival.local = _prepare(connection.transport)
                fields = ((b"host", self.address.authority.encode()), (b"connection", b"close"))
                exchange = connection.request("GET", self.address.prefix + HEALTH, fields, NO_BODY, arrival)
                exchange.end()
                await arrival.head()
        except (HttpError, HomeError, OSError, TimeoutError):
            return None
        finally:
            if exchange is not None:
                exchange.abort()
        return arrival.local


async def read_small(arrival: Arrival, limit: int = MAX_PROBLEM) -> bytes:
    """Return the whole content of an answer.

    Raises:
        HomeError: It is cut short, or longer than `limit` bytes.
    """
    found = b""
    while data := await arrival.read():
        found += data
        if len(found) > limit:
            raise HomeError(
                Fault.DAMAGED, Problem.ENGINE_UNREACHABLE, "The server's answer is longer than any can be."
            )
    return found


def _prepare(transport: asyncio.BaseTransport) -> str:
    """Have the system notice when the other side is gone; return our address."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            option = getattr(socket, name, None)
            if option is not None:
                with contextlib.suppress(OSError, AttributeError):
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
    name = transport.get_extra_info("sockname")
    return str(name[0]) if isinstance(name, tuple) and name else ""
