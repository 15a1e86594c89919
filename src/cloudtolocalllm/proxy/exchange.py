"""One client's request on its way to a bridge, and the answer on its way back.

Two objects a request: `Exchange` faces the client, `Answer` faces the tunnel. Bytes pass through as callbacks, under
the credit of the stream in both directions: what a client does not read is not granted to the bridge, and what the
bridge does not take is not read from the client.
"""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.auth.assertion import Assertion
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import Stream, Tunnel
from cloudtolocalllm.proxy import problems
from cloudtolocalllm.proxy.forwarding import ResponseError, response_body, response_fields
from cloudtolocalllm.proxy.limits import Limiter
from cloudtolocalllm.proxy.selection import Bridges, BusyError, Waiter
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.proxy.stats import Stats
from cloudtolocalllm.runtime.http1 import BodyKind, Headers, Request, Responder
from cloudtolocalllm.runtime.http1.messages import end_to_end
from cloudtolocalllm.tunnel import RequestHead, ResetReason, ResponseHead

log = logging.getLogger(__name__)

REPLAY_MAX = 64 * 1024
"""Bytes of request content kept until the answer begins, so that a bridge that refuses can be replaced by another.
Longer requests are not tried again."""
HELD_MAX = 64 * 1024
"""Bytes of request content read ahead while no bridge is attached: most requests are complete then, and the
connection is still read, so that a client that leaves is noticed."""


class Exchange:
    """The client's side (a `RequestHandler`)."""

    __slots__ = (
        "_body_complete",
        "_bridges",
        "_claims",
        "_completed",
        "_done",
        "_head",
        "_held",
        "_held_size",
        "_limiter",
        "_paused",
        "_replay",
        "_replay_size",
        "_settings",
        "_timer",
        "_trailers",
        "_tried",
        "_waiter",
        "answer",
        "finished",
        "id",
        "request",
        "responder",
        "stats",
        "stream",
    )

    def __init__(
        self,
        request: Request,
        responder: Responder,
        claims: Assertion,
        head: RequestHead,
        exchange_id: bytes,
        *,
        bridges: Bridges,
        stats: Stats,
        limiter: Limiter,
        settings: ProxySettings,
        done: Callable[["Exchange"], None],
    ) -> None:
        self.request = request
        self.responder = responder
        self.id = exchange_id
        self.stats = stats
        self.stream: Stream | None = None
        self.answer: Answer | None = None
        self.finished = False
        self._claims = claims
        self._head = head
        self._bridges = bridges
        self._limiter = limiter
        self._settings = settings
        self._done = done
        self._held: list[bytes] = []
        self._held_size = 0
        self._body_complete = False
        self._completed = False
        self._trailers: Headers = ()
        self._paused = False
        self._replay: list[bytes] | None = []
        self._replay_size = 0
        self._tried: set[Tunnel] = set()
        self._waiter: Waiter | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Open a stream, or wait for a bridge to attach."""
        self.stats.begin()
        if self._settings.head_timeout > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._settings.head_timeout, self._head_timed_out)
        if not self._claims.bridges:
            self.fail(Problem.NO_BRIDGE_PAIRED, "Install the bridge on the machine that runs models, and pair it.")
            return
        self._connect()

    # --- the client's request -------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Pass content on as far as the stream's window allows."""
        if self.finished:
            return
        stream = self.stream
        if stream is None or self._held:
            self._hold(data)
            if stream is not None or self._held_size >= HELD_MAX:
                self._pause()
            return
        size = stream.window
        if size >= len(data):
            self._send(stream, data)
            return
        if size:
            self._send(stream, data[:size])
        self._hold(data[size:])
        self._pause()

    def on_body_end(self, trailers: Headers) -> None:
        """Complete the request, after what is held."""
        self._body_complete = True
        self._trailers = end_to_end(trailers)
        if self.stream is not None and not self._held and not self.finished:
            self._complete(self.stream)

    def on_disconnect(self) -> None:
        """The client stopped or left: the engine need not go on."""
        self._cancel("the client went away")
        self._finish()

    def on_writable(self, writable: bool) -> None:
        """The client reads too slowly, or can take more."""
        if self.answer is not None:
            self.answer.client_writable(writable)

    # --- what the answer tells ------------------------------------------------------------------------------

    def stream_writable(self) -> None:
        """Pass on what is held."""
        stream = self.stream
        while self._held and stream is not None:
            size = stream.window
            if size == 0:
                return
            data = self._held.pop(0)
            if len(data) > size:
                self._held.insert(0, data[size:])
                data = data[:size]
            self._held_size -= len(data)
            self._send(stream, data)
        if stream is not None and self._body_complete:
            self._complete(stream)
        elif self._paused:
            self._paused = False
            self.responder.resume_body()

    def answer_begins(self) -> None:
        """The bridge has taken the request: it will not be tried elsewhere."""
        self._replay = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answer_complete(self, trailers: Headers) -> None:
        """End the response. A request that is still being sent is of no more use to the bridge."""
        if self.stream is not None and not self._completed:
            self.stream.reset(ResetReason.CANCELLED, "answered before the request was complete")
        self.responder.end(trailers)
        self._finish()

    def answer_broken(self, detail: str) -> None:
        """Break the response off, so that the client sees that it was cut short."""
        log.info("answer cut short", extra={"exchange": self.id.decode(), "cause": detail})
        self.responder.abort()
        self._finish()

    def refused(self, reason: ResetReason, detail: str) -> None:
        """The stream was reset before the answer began."""
        self.stream = None
        if reason is ResetReason.REFUSED and self._replay is not None:
            self._rewind(self._replay)
            self._connect()
            return
        log.info("stream reset", extra={"exchange": self.id.decode(), "reason": reason.name, "cause": detail})
        self.fail(*problems.of_reset(reason))

    def fail(self, problem: Problem, detail: str) -> None:
        """Answer with a problem document."""
        problems.respond(self.responder, problem, detail, self.id, self.own_fields())
        self._finish()

    def own_fields(self) -> Headers:
        """Return the fields that every answer gets here, whoever gives it."""
        return self._limiter.fields(self._claims)

    # --- choosing a bridge ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        answer = Answer(self)
        try:
            stream = self._bridges.open(self._claims.bridges, self._head, answer, self._tried)
            if stream is None:
                self._wait()
                return
        except BusyError:
            self.fail(Problem.OVERLOADED, "Every bridge that may serve this has as much as it takes; try again.")
            return
        self.stream, self.answer = stream, answer
        answer.stream = stream
        self.stream_writable()

    def _wait(self) -> None:
        if self.request.expect_continue:
            self._pause()  # the client need not send its content while nobody may take it
        self._waiter = self._bridges.wait(
            self._claims.bridges, self._settings.attach_timeout, self._bridge_came, self._offline
        )

    def _bridge_came(self) -> None:
        self._waiter = None
        self._connect()

    def _offline(self) -> None:
        self._waiter = None
        self.fail(
            Problem.BRIDGE_OFFLINE, "It may be asleep or without a network; wake it up, or start the bridge there."
        )

    def _head_timed_out(self) -> None:
        self._timer = None
        self._cancel("no answer in time")
        self.fail(*problems.of_reset(ResetReason.TIMED_OUT))

    # --- small steps ----------------------------------------------------------------------------------------

    def _send(self, stream: Stream, data: bytes) -> None:
        stream.send_data(data)
        self.stats.bytes_up += len(data)
        replay = self._replay
        if replay is not None:
            self._replay_size += len(data)
            if self._replay_size > REPLAY_MAX:
                self._replay = None
            else:
                replay.append(data)

    def _complete(self, stream: Stream) -> None:
        if not self._completed:
            self._completed = True
            stream.end(self._trailers)

    def _rewind(self, replay: list[bytes]) -> None:
        """Hold what was sent, in front of what is held already."""
        self._held[:0] = replay
        self._held_size += self._replay_size
        self._replay, self._replay_size = [], 0
        self._completed = False

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_size += len(data)

    def _pause(self) -> None:
        if not self._paused and not self._body_complete and self.request.body.kind is not BodyKind.NONE:
            self._paused = True
            self.responder.pause_body()

    def _cancel(self, detail: str) -> None:
        if self._waiter is not None:
            self._bridges.leave(self._waiter)
            self._waiter = None
        if self.stream is not None:
            self.stream.reset(ResetReason.CANCELLED, detail)

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        self._held.clear()
        self._replay = None
        self.stream = None
        self.answer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._paused:
            self._paused = False
            self.responder.resume_body()  # no effect once answered; the connection then reads what is left
        self.stats.end()
        self._limiter.ended(self._claims)
        log.debug("exchange over", extra={"exchange": self.id.decode(), "request": self._claims.request_id})
        self._done(self)


class Answer:
    """The tunnel's side (a `StreamHandler`)."""

    __slots__ = ("_exchange", "_left", "_owed", "_responder", "_started", "_stats", "_writable", "stream")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._responder = exchange.responder
        self._stats = exchange.stats
        self._started = False
        self._left: int | None = None
        """Bytes of content still expected, None when that is not known."""
        self._writable = True
        self._owed = 0
        """Bytes passed to a slow client's buffer and not yet granted to the bridge again."""
        self.stream: Stream | None = None

    def on_head(self, head: ResponseHead) -> None:
        """Pass a head on; 100 and 101 are this connection's own affair."""
        if head.status < 200:
            if head.status not in (100, 101):
                self._responder.inform(head.status, response_fields(head.headers))
            return
        exchange = self._exchange
        exchange.answer_begins()
        try:
            body, left = response_body(exchange.request.method, head)
        except ResponseError as error:
            log.warning("malformed answer", extra={"exchange": exchange.id.decode(), "fault": str(error)})
            self._give_up("malformed answer")
            exchange.fail(Problem.ENGINE_ERROR, "The answer from home is not valid HTTP.")
            return
        self._started = True
        self._left = left
        fields = (*response_fields(head.headers), (problems.EXCHANGE_ID, exchange.id), *exchange.own_fields())
        self._responder.start(head.status, fields, body)

    def on_data(self, data: bytes) -> None:
        """Pass content on and grant as much again, at once or when the client's buffer has drained."""
        size = len(data)
        left = self._left
        if left is not None:
            if size > left:
                self._give_up("longer than its Content-Length")
                self._exchange.answer_broken("longer than its Content-Length")
                return
            self._left = left - size
        self._responder.write(data)
        self._stats.bytes_down += size
        if self._writable:
            self.stream.consumed(size)  # type: ignore[union-attr] # set before anything is received
        else:
            self._owed += size

    def on_end(self, trailers: Headers) -> None:
        """Complete the response, unless some of it is missing."""
        if not self._started or self._left:
            self._give_up("ended early")
            if self._started:
                self._exchange.answer_broken("shorter than its Content-Length")
            else:
                self._exchange.fail(Problem.ENGINE_ERROR, "The answer from home ended before it began.")
            return
        self._exchange.answer_complete(trailers)

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """Say so while that is possible; cut the response visibly when it is not."""
        if self._started:
            self._exchange.answer_broken(f"{reason.name} {detail}")
        else:
            self._exchange.refused(reason, detail)

    def on_writable(self) -> None:
        """The bridge takes more of the request."""
        self._exchange.stream_writable()

    def client_writable(self, writable: bool) -> None:
        """The client's buffer is full, or has drained."""
        self._writable = writable
        if writable and self._owed and self.stream is not None:
            owed, self._owed = self._owed, 0
            self.stream.consumed(owed)

    def _give_up(self, detail: str) -> None:
        if self.stream is not None:
            self.stream.reset(ResetReason.CANCELLED, detail)
