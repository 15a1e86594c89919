"""One accepted connection: requests one at a time, each with its exchange."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.runtime.http1._chunked import ChunkedDecoder, ChunkedError
from cloudtolocalllm.runtime.http1._deadline import Deadline
from cloudtolocalllm.runtime.http1._head import END_OF_HEAD, STRAY_LINE_END, parse_request_head
from cloudtolocalllm.runtime.http1._server_exchange import ServerExchange
from cloudtolocalllm.runtime.http1._sockets import bound_unsent
from cloudtolocalllm.runtime.http1.errors import BadRequestError
from cloudtolocalllm.runtime.http1.messages import BodyKind, Headers, HttpLimits, Request

if TYPE_CHECKING:
    from cloudtolocalllm.runtime.http1.server import Gate, RequestHandler

log = logging.getLogger(__name__)

HEAD, BODY, WAIT, DISCARD, LINGER, DETACHED, CLOSED = range(7)
"""What is read: a head; content for the handler; nothing until the response has ended; content that nobody wants,
before the next request; anything, so that a client still sending gets to read its answer; nothing more of ours
(hijacked, closed)."""

DISCARD_MAX = 64 * 1024
"""Bytes of unwanted content that are read to keep a connection; with more to come it is closed instead."""
LINGER_MAX = 16 * 1024 * 1024
"""Bytes read after the last response before the connection is cut."""
LINGER_TIME = 5.0
"""Seconds; nginx's lingering_timeout."""

_PROBLEMS = {408: Problem.TIMED_OUT, 413: Problem.TOO_LARGE, 414: Problem.TOO_LARGE, 431: Problem.TOO_LARGE}


class Owner(Protocol):
    """What a connection needs of its server."""

    limits: HttpLimits
    error_headers: Headers
    draining: bool
    connections_open: set["ServerConnection"]

    @property
    def gate(self) -> "Gate | None":
        """Who decides about connections; None for nobody."""
        ...

    @property
    def app(self) -> "Callable[[Request, ServerExchange], RequestHandler]":
        """Who takes the requests."""
        ...

    def date_line(self) -> bytes:
        """Return the Date field line of this second."""
        ...

    def left(self) -> None:
        """A connection is gone from `connections_open`."""


class ServerConnection(asyncio.Protocol):
    """The protocol of one connection. Input that cannot be used yet waits in `_pending`, with reading paused."""

    __slots__ = (
        "_body_paused",
        "_deadline",
        "_decoder",
        "_discarded",
        "_pending",
        "_reading_paused",
        "_remaining",
        "_running",
        "_scanned",
        "exchange",
        "limits",
        "loop",
        "owner",
        "peer",
        "state",
        "transport",
        "writing_paused",
    )

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.limits = owner.limits
        self.loop = asyncio.get_running_loop()
        self.state = HEAD
        self.exchange: ServerExchange | None = None
        self.peer = ""
        self.writing_paused = False
        self._pending = b""
        self._scanned = 0
        self._decoder: ChunkedDecoder | None = None
        self._remaining = 0
        self._discarded = 0
        self._body_paused = False
        self._reading_paused = False
        self._running = False
        self._deadline = Deadline(self.loop, self._expired)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are of no common class
        self.transport.set_write_buffer_limits(high=self.limits.write_high_water)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        bound_unsent(transport)
        self.owner.connections_open.add(self)
        self._deadline.set(self.limits.idle_timeout)
        gate = self.owner.gate
        if gate is not None and not gate.opened(self.peer):
            self._turn_away(gate.refusal(self.peer))

    def data_received(self, data: bytes) -> None:
        """Take input."""
        try:
            if self.state == BODY and not self._pending and not self._body_paused:
                if self._take_body(data):
                    self._advance()
            elif self.state == LINGER:
                self._discarded += len(data)
                if self._discarded > LINGER_MAX:
                    self.transport.abort()
            elif self.state == DETACHED:
                log.error("expected the owner of a hijacked connection to set its protocol at once")
                self.transport.abort()
            elif self.state != CLOSED:
                self._pending = self._pending + data if self._pending else data
                self._advance()
        except Exception as error:
            self._failed(error)

    def eof_received(self) -> None:
        """Let the transport close: a client that ends its side is taken to have gone away."""

    def pause_writing(self) -> None:
        """Tell the handler, and give a client that reads nothing a deadline."""
        self._writable(writable=False)
        self._deadline.set(self.limits.write_timeout)

    def resume_writing(self) -> None:
        """Tell the handler."""
        self._deadline.set(self._reading_time())
        self._writable(writable=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler that its client is gone."""
        self._detach(CLOSED)
        if self.owner.gate is not None:
            self.owner.gate.closed(self.peer)
        exchange, self.exchange = self.exchange, None
        self._tell_gone(exchange)

    # --- reading ---

    def _advance(self) -> None:
        """Use what is pending as far as the state allows."""
        if self._running:
            return  # the caller up the stack goes on
        self._running = True
        try:
            while self._step():
                pass
        finally:
            self._running = False
        self.update_reading()

    def _step(self) -> bool:
        if not self._pending:
            return False
        if self.state == HEAD:
            # A response that is still in the buffer holds the next request back.
            return not self.writing_paused and self._begin()
        if self.state == DISCARD or (self.state == BODY and not self._body_paused):
            data, self._pending = self._pending, b""
            self._take_body(data)
            return True
        return False

    def _begin(self) -> bool:
        """Take a request if its head is complete."""
        data = self._pending
        while data.startswith(b"\r\n"):  # RFC 9112 §2.2: empty lines before a request line are ignored
            data = data[2:]
            self._scanned = 0
        self._pending = data
        end = data.find(END_OF_HEAD, max(0, self._scanned - 3)) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            self._check_partial_head(data)
            return False
        self._scanned = 0
        head, self._pending = data[:end], data[end:]
        if len(head) > self.limits.max_head:
            self._head_too_long(head)
        self._serve(parse_request_head(head, self.limits))
        return True

    def _check_partial_head(self, data: bytes) -> None:
        """Refuse early what will never be a head, so that it need not wait for its deadline."""
        if self._scanned == 0 and data:
            self._deadline.set(self.limits.head_timeout)
        if data[:1] and not data[:1].isalpha() and data != b"\r":
            raise BadRequestError(400, "expected a request line of method, target and version")
        if STRAY_LINE_END.search(data, max(0, self._scanned - 1)):
            raise BadRequestError(400, "expected lines to end in CRLF")
        self._scanned = len(data)
        if len(data) > self.limits.max_head:
            self._head_too_long(data)

    def _head_too_long(self, data: bytes) -> None:
        line = data.find(b"\r\n")
        if line < 0 or line > self.limits.max_target + 64:
            raise BadRequestError(414, f"expected a target of at most {self.limits.max_target} bytes")
        raise BadRequestError(431, f"expected a head of at most {self.limits.max_head} bytes")

    def _serve(self, request: Request) -> None:
        body = request.body
        self._body_paused = False
        self._decoder = ChunkedDecoder(self.limits.max_fields) if body.kind is BodyKind.CHUNKED else None
        self._remaining = body.length
        complete = self._decoder is None and body.length == 0
        self.state = WAIT if complete else BODY
        self._deadline.set(self._reading_time())
        exchange = self.exchange = ServerExchange(self, request)
        handler = self.owner.app(request, exchange)
        if self.exchange is not exchange:
            return  # answered at once
        exchange.handler = handler
        if complete:
            handler.on_body_end(())
        elif not self._body_paused:
            exchange.send_continue()

    def _take_body(self, data: bytes) -> bool:
        """Take content, and leave what comes behind it pending; return whether the content is complete."""
        decoder = self._decoder
        if decoder is None:
            size = len(data)
            if size > self._remaining:
                data, self._pending = data[: self._remaining], data[self._remaining :]
                size = self._remaining
            self._remaining -= size
            done = self._remaining == 0
        else:
            try:
                data = decoder.feed(data)
            except ChunkedError as error:
                raise BadRequestError(400, str(error)) from None
            done = decoder.done
            if done:
                self._pending = decoder.rest
        if self.state == DISCARD:
            self._discard(len(data), done=done)
            return done
        if not self.writing_paused:
            self._deadline.set(None if done else self.limits.body_timeout)
        if done:
            self.state = WAIT
        exchange = self.exchange
        assert exchange is not None and exchange.handler is not None  # noqa: S101, PT018 - the state says so
        if data:
            exchange.handler.on_body(data)
        if done and self.exchange is exchange:
            exchange.handler.on_body_end(() if decoder is None else decoder.trailers)
        return done

    def _discard(self, size: int, *, done: bool) -> None:
        self._discarded += size
        if done:
            self._next()
        elif self._discarded > DISCARD_MAX:
            self.transport.abort()

    @property
    def body_left(self) -> int | None:
        """Bytes of the request's content still to come, None when that is not known."""
        if self.state != BODY:
            return 0
        return None if self._decoder is not None else self._remaining

    def set_body_paused(self, *, paused: bool) -> None:
        """Pause or resume the content of the request at hand."""
        self._body_paused = paused
        if self.state == BODY:
            if not self.writing_paused:
                self._deadline.set(self._reading_time())
            if not paused and self._pending and not self._running:
                self.loop.call_soon(self._go_on)  # not now: the caller does not expect calls
            self.update_reading()

    def _go_on(self) -> None:
        try:
            self._advance()
        except Exception as error:
            self._failed(error)

    def update_reading(self) -> None:
        """Pause the transport when nothing more can be used, else resume it.

        While a response is under way, reading goes on until something comes: a client's leaving is seen only so.
        """
        pause = (self.state == BODY and self._body_paused) or (
            self.state in (HEAD, WAIT) and bool(self._pending) and (self.state == WAIT or self.writing_paused)
        )
        if pause is self._reading_paused or self.state in (DETACHED, CLOSED) or self.transport.is_closing():
            return
        self._reading_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- ends ---

    def response_ended(self, *, close: bool) -> None:
        """The exchange has written its whole response."""
        self.exchange = None
        if not close and not self.owner.draining:
            if self.state == WAIT:
                self._next()
            else:
                self.state, self._discarded = DISCARD, 0
                self._deadline.set(self.limits.body_timeout)
        elif self.state == WAIT:
            self.close()
        else:
            self._linger()
        if self._pending and not self._running:
            self.loop.call_soon(self._go_on)
        self.update_reading()

    def _next(self) -> None:
        self.state = HEAD
        self._decoder = None
        self._deadline.set(self.limits.idle_timeout)
        if self.owner.draining:
            self.close()

    def _linger(self) -> None:
        """Close in a way that lets the client read the response: a reset would discard it (RFC 9112 §9.6)."""
        self.state, self._discarded, self._pending = LINGER, 0, b""
        self._deadline.set(LINGER_TIME)
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        """Close once the buffer is written."""
        if self.state != DETACHED:
            self.state, self._pending = CLOSED, b""
            self._deadline.set(self.limits.write_timeout if self.writing_paused else LINGER_TIME)
            self.transport.close()

    def cut(self, *, visible: bool) -> None:
        """Break off the response at hand.

        Args:
            visible: Whether its framing shows that it was cut; if not, the connection is reset, which does.
        """
        self.exchange = None
        if visible:
            self.close()
            return
        self.state = CLOSED
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # not for Unix sockets on every system
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def abort(self) -> None:
        """Cut everything at once."""
        self.transport.abort()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away, reading, with the bytes that came behind the head."""
        if self._reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()
        rest, self._pending = self._pending, b""
        self.exchange = None
        self._detach(DETACHED)
        return self.transport, rest

    def _detach(self, state: int) -> None:
        self.state, self._pending = state, b""
        self._deadline.cancel()
        self.owner.connections_open.discard(self)
        self.owner.left()

    # --- faults ---

    def _failed(self, error: Exception) -> None:
        """Answer a fault of the peer, or of the application, if that can still be done."""
        if isinstance(error, BadRequestError):
            self._refuse(error.status, error.detail)
            return
        log.error("a request handler failed", exc_info=error)
        self._refuse(500, "The server failed; its log says why.")

    def _refuse(self, status: int, detail: str) -> None:
        exchange, self.exchange = self.exchange, None
        started = exchange is not None and exchange.started
        if started or self.state in (DETACHED, CLOSED, LINGER, DISCARD):
            self.state = CLOSED if self.state != DETACHED else DETACHED
            self.transport.abort()
        else:
            problem = _PROBLEMS.get(status, Problem.INTERNAL if status >= 500 else Problem.BAD_REQUEST)
            answer = exchange or ServerExchange(self, None)
            headers = ((b"content-type", CONTENT_TYPE.encode()), *self.owner.error_headers)
            content = problem_content(problem, detail, status=status)
            answer.write_refusal(status, headers, content)
            self._linger()
        self._tell_gone(exchange)

    def _turn_away(self, answer: tuple[int, Headers, bytes] | None) -> None:
        if answer is None:
            self.state = CLOSED
            self.transport.abort()
        else:
            ServerExchange(self, None).write_refusal(*answer)
            self._linger()

    def _tell_gone(self, exchange: ServerExchange | None) -> None:
        if exchange is not None:
            try:
                exchange.disconnected()
            except Exception:
                log.exception("a request handler failed at its disconnect")

    def _writable(self, *, writable: bool) -> None:
        self.writing_paused = not writable
        try:
            if self.exchange is not None and self.exchange.handler is not None:
                self.exchange.handler.on_writable(writable)
            if writable and self.state == HEAD and self._pending:
                self._advance()
        except Exception as error:
            self._failed(error)

    # --- time ---

    def _reading_time(self) -> float | None:
        if self.state == HEAD:
            return self.limits.idle_timeout
        if self.state in (LINGER, CLOSED):
            return LINGER_TIME
        return self.limits.body_timeout if self.state == BODY and not self._body_paused else None

    def _expired(self) -> None:
        if self.writing_paused or self.state in (CLOSED, LINGER, DISCARD):
            self.transport.abort()
        elif self.state == HEAD and not self._pending:
            self.close()
        else:
            self._refuse(408, "The request did not come in time.")
