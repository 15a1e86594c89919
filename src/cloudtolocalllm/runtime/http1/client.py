"""The client side: connections, exchanges with callbacks, a keep-alive pool, and `fetch` for small requests."""

from typing import Protocol

from cloudtolocalllm.runtime.http1.messages import Body, Headers, HttpLimits, Response


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


class Connection:
    """One connection to a server; one exchange at a time."""

    def request(self, method: str, target: str, headers: Headers, body: Body, handler: ResponseHandler) -> Exchange:
        """Send a request's head; content follows with `Exchange.write` and `end` (end at once without content).

        Host must be in `headers`; framing fields are written from `body`.
        """
        raise NotImplementedError

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: kept alive, idle, not closed by the peer."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError


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
        raise NotImplementedError

    async def acquire(self) -> Connection:
        """Return an idle connection or a new one; it comes back by itself when its exchange ends reusable.

        Raises:
            ConnectError: No connection within the deadline.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close the idle connections; those in use close when their exchange ends."""
        raise NotImplementedError


async def fetch(
    pool: Pool,
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
    raise NotImplementedError
