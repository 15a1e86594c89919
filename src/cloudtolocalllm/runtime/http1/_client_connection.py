"""One connection to a server: exchanges one at a time."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from cloudtolocalllm.runtime.http1._chunked import ChunkedDecoder, ChunkedError, chunk, last_chunk
from cloudtolocalllm.runtime.http1._encode import framing_line, head
from cloudtolocalllm.runtime.http1._head import END_OF_HEAD, STRAY_LINE_END, parse_response_head
from cloudtolocalllm.runtime.http1.errors import BadResponseError, HttpError, LocalError
from cloudtolocalllm.runtime.http1.messages import DEFAULT_LIMITS, Body, BodyKind, Headers, HttpLimits

if TYPE_CHECKING:
    from cloudtolocalllm.runtime.http1.client import ResponseHandler

log = logging.getLogger(__name__)

IDLE, HEAD, BODY, SWITCHED, CLOSED = range(5)
"""What is read: nothing; a head; content; nothing more of ours (after 101); nothing more."""

_EXPECT_CONTENT = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests say so when they have no content (RFC 9110 §8.6)."""
_JOIN_MAX = 16 * 1024


class ClientExchange:
    """One request under way. Once it is over, everything is allowed and has no effect."""

    __slots__ = ("_chunked", "_conn", "_remaining", "ended", "handler", "method")

    def __init__(self, conn: "Connection", method: str, body: Body, handler: "ResponseHandler") -> None:
        self._conn: Connection | None = conn
        self.method = method
        self.handler = handler
        self.ended = False
        self._chunked = body.kind is BodyKind.CHUNKED
        self._remaining = body.length

    def write(self, data: bytes) -> None:
        """Send content of the request."""
        conn = self._conn
        if conn is None or not data:
            return
        if self.ended:
            raise LocalError("expected no content after the end")
        if not self._chunked:
            if len(data) > self._remaining:
                self.abort()
                raise LocalError(f"expected at most {self._remaining} more bytes of content, got {len(data)}")
            self._remaining -= len(data)
            conn.transport.write(data)
        elif len(data) <= _JOIN_MAX:
            conn.transport.write(chunk(data))
        else:
            conn.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def end(self, trailers: Headers = ()) -> None:
        """Complete the request."""
        conn = self._conn
        if conn is None or self.ended:
            return
        if self._remaining:
            missing = self._remaining
            self.abort()
            raise LocalError(f"expected {missing} more bytes of content, got the end")
        self.ended = True
        if self._chunked:
            conn.transport.write(last_chunk(trailers))

    def abort(self) -> None:
        """Close the connection at once; the handler is not called again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.drop()

    def pause_body(self) -> None:
        """Stop reading the response's content."""
        if self._conn is not None:
            self._conn.set_paused(paused=True)

    def resume_body(self) -> None:
        """Read on."""
        if self._conn is not None:
            self._conn.set_paused(paused=False)

    def takeover(self) -> tuple[asyncio.Transport, bytes]:
        """Take the connection over after status 101."""
        conn, self._conn = self._conn, None
        if conn is None or conn.state != SWITCHED:
            raise LocalError("expected a connection that was switched by status 101")
        return conn.hand_over()

    def release(self) -> None:
        """Let go of the connection: the exchange is over."""
        self._conn = None


class Connection(asyncio.Protocol):
    """One connection to a server; one exchange at a time."""

    __slots__ = (
        "_decoder",
        "_exchange",
        "_keep_alive",
        "_limits",
        "_loop",
        "_paused",
        "_pending",
        "_remaining",
        "_running",
        "_served",
        "idle_since",
        "on_idle",
        "on_lost",
        "state",
        "transport",
        "writing_paused",
    )

    transport: asyncio.Transport

    def __init__(self, limits: HttpLimits | None = None) -> None:
        """Make the protocol of a connection that is about to be made."""
        self._limits = limits or DEFAULT_LIMITS
        self._loop = asyncio.get_running_loop()
        self.state = CLOSED
        self._exchange: ClientExchange | None = None
        self._decoder: ChunkedDecoder | None = None
        self._remaining = 0
        self._keep_alive = True
        self._paused = False
        self._pending = b""
        self._running = False
        self._served = 0
        self.writing_paused = False
        self.idle_since = 0.0
        self.on_idle: Callable[[Connection], None] | None = None
        self.on_lost: Callable[[Connection], None] | None = None

    # --- for callers ---

    def request(
        self, method: str, target: str, headers: Headers, body: Body, handler: "ResponseHandler"
    ) -> ClientExchange:
        """Send a request's head; content follows with `Exchange.write` and `end` (end at once without content).

        Host must be in `headers`; framing fields are written from `body`.

        Raises:
            LocalError: The connection is not reusable, or the head is none.
        """
        if self.state != IDLE or self.transport.is_closing():
            raise LocalError("expected an open connection without an exchange")
        if not target.isascii() or not target.isprintable() or " " in target or not method.isalpha():
            raise LocalError("expected a method and a target without spaces and control characters")
        if body.kind is BodyKind.UNTIL_CLOSE:
            raise LocalError("expected content of a known length, or chunked")
        extra = framing_line(body)
        if body.kind is BodyKind.NONE and method in _EXPECT_CONTENT:
            extra = b"content-length: 0\r\n"
        data = head(f"{method} {target} HTTP/1.1\r\n".encode(), headers, extra)
        self.state = HEAD
        self._keep_alive = True
        self._paused = False
        exchange = self._exchange = ClientExchange(self, method, body, handler)
        self.transport.write(data)
        return exchange

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: kept alive, idle, not closed by the peer."""
        return self.state == IDLE and not self.transport.is_closing()

    def close(self) -> None:
        """Close the connection; the handler of an exchange that is under way is not called again."""
        if self._exchange is not None:
            self._exchange.abort()
        elif self.state != SWITCHED and self.state != CLOSED:
            self.state = CLOSED
            self.transport.close()

    # --- for exchanges ---

    def drop(self) -> None:
        """Close at once, without a word to the handler."""
        self._exchange = None
        self.state, self._pending = CLOSED, b""
        self.transport.abort()

    def set_paused(self, *, paused: bool) -> None:
        """Pause or resume reading."""
        if paused is self._paused or self.state not in (HEAD, BODY):
            return
        self._paused = paused
        if self.transport.is_closing():
            return
        if paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
            if self._pending and not self._running:
                self._loop.call_soon(self._advance)  # not now: the caller does not expect calls

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away, reading, with the bytes that came behind the head."""
        rest, self._pending = self._pending, b""
        self._exchange = None
        self.state = CLOSED
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self._lost()
        return self.transport, rest

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are of no common class
        self.transport.set_write_buffer_limits(high=self._limits.write_high_water)
        self.state = IDLE

    def data_received(self, data: bytes) -> None:
        """Take input."""
        if self.state == CLOSED:
            return
        if self.state == IDLE:
            # Nothing was asked: a late 408, or an attempt to answer the next request beforehand.
            self.close()
            return
        self._pending = self._pending + data if self._pending else data
        self._advance()

    def eof_received(self) -> None:
        """End a body that the connection's end delimits; anything else was cut short."""
        if self.state == BODY and self._decoder is None and self._remaining < 0 and not self._pending:
            try:
                self._finish(())
            except Exception as error:
                self._handler_failed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange that is under way."""
        before_head = self.state == HEAD and not self._pending
        if self._exchange is not None:
            detail = "expected a response, got the connection's end" if before_head else "the response was cut short"
            self._fail(BadResponseError(detail, retryable=before_head and self._served > 0))
        self.state = CLOSED
        self._lost()

    def pause_writing(self) -> None:
        """Tell the handler."""
        self._writable(writable=False)

    def resume_writing(self) -> None:
        """Tell the handler."""
        self._writable(writable=True)

    def _writable(self, *, writable: bool) -> None:
        self.writing_paused = not writable
        if self._exchange is not None:
            try:
                self._exchange.handler.on_writable(writable)
            except Exception as error:
                self._handler_failed(error)

    # --- reading ---

    def _advance(self) -> None:
        if self._running:
            return  # the caller up the stack goes on
        self._running = True
        try:
            while self._pending and not self._paused and self._step():
                pass
        except HttpError as error:
            self._fail(error)
        except Exception as error:
            self._handler_failed(error)
        finally:
            self._running = False

    def _step(self) -> bool:
        if self.state == BODY:
            self._take_body()
            return True
        if self.state == HEAD:
            return self._take_head()
        if self.state == IDLE:
            self.close()  # more than was asked for
        return False

    def _take_head(self) -> bool:
        data = self._pending
        end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            if len(data) > self._limits.max_head:
                raise BadResponseError(f"expected a head of at most {self._limits.max_head} bytes")
            if not (data.startswith(b"HTTP/") or b"HTTP/".startswith(data)) or STRAY_LINE_END.search(data):
                raise BadResponseError("expected a response head as RFC 9112 has it")  # it would never end
            return False
        if end > self._limits.max_head:
            raise BadResponseError(f"expected a head of at most {self._limits.max_head} bytes")
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - the state says so
        self._pending = data[end:]
        response = parse_response_head(data[:end], exchange.method, self._limits)
        self._keep_alive = self._keep_alive and response.keep_alive
        if response.status == 101:
            self.state = SWITCHED
            if not self.transport.is_closing():
                self.transport.pause_reading()
            exchange.handler.on_head(101, response.headers, response.body)
            return False
        if response.status < 200:
            exchange.handler.on_informational(response.status, response.headers)
            return True
        self._expect(response.body)
        exchange.handler.on_head(response.status, response.headers, response.body)
        if self._exchange is exchange and self._decoder is None and self._remaining == 0:
            self._finish(())
        return True

    def _expect(self, body: Body) -> None:
        self.state = BODY
        self._decoder = ChunkedDecoder(self._limits.max_fields) if body.kind is BodyKind.CHUNKED else None
        self._remaining = -1 if body.kind is BodyKind.UNTIL_CLOSE else body.length

    def _take_body(self) -> None:
        data, self._pending = self._pending, b""
        exchange, decoder = self._exchange, self._decoder
        assert exchange is not None  # noqa: S101 - the state says so
        trailers: Headers = ()
        if decoder is not None:
            try:
                data = decoder.feed(data)
            except ChunkedError as error:
                raise BadResponseError(str(error)) from None
            done = decoder.done
            if done:
                self._pending, trailers = decoder.rest, decoder.trailers
        elif self._remaining < 0:
            done = False
        else:
            if len(data) > self._remaining:
                data, self._pending = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(data)
            done = self._remaining == 0
        if data:
            exchange.handler.on_body(data)
        if done and self._exchange is exchange:
            self._finish(trailers)

    # --- ends ---

    def _finish(self, trailers: Headers) -> None:
        """The response is complete: free the connection first, so that the handler may use it again."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None  # noqa: S101 - the state says so
        self._served += 1
        self._decoder = None
        reusable = self._keep_alive and exchange.ended and not self._pending and not self.transport.is_closing()
        exchange.release()
        if reusable and self._remaining >= 0:
            self.state = IDLE
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            if self.on_idle is not None:
                self.on_idle(self)
        else:
            self.state = CLOSED
            self.transport.close()
        exchange.handler.on_end(trailers)

    def _fail(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        self.state, self._pending = CLOSED, b""
        self.transport.abort()
        if exchange is not None:
            exchange.release()
            try:
                exchange.handler.on_error(error)
            except Exception:
                log.exception("a response handler failed at its error")

    def _handler_failed(self, error: Exception) -> None:
        """A handler raised: its exchange cannot go on; it is told, for it may hold more than this connection."""
        log.error("a response handler failed", exc_info=error)
        self._fail(BadResponseError("the response's handler failed"))

    def _lost(self) -> None:
        if self.on_lost is not None:
            self.on_lost(self)
