"""Passes one request on and its answer back, chunk by chunk as they come."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge import headers as fields
from cloudtolocalllm.edge.answers import NOT_PASSED_ON, retry_after, send_problem
from cloudtolocalllm.edge.splice import splice
from cloudtolocalllm.runtime.http1 import (
    BadResponseError,
    Body,
    BodyKind,
    ConnectError,
    Connection,
    Exchange,
    Headers,
    HttpError,
    Request,
    Responder,
    switching_protocols,
)
from cloudtolocalllm.runtime.http1.messages import CHUNKED, end_to_end

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Record:
    """What the access log tells of one request."""

    method: str
    route: str
    request_id: bytes
    started: float
    status: int = 0
    sent: int = 0
    """Bytes of content to the client."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes on."""

    connection: Connection
    headers: Headers


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is relayed."""

    connect: Callable[[], Awaitable[Upstream | None]]
    """Finds the upstream; None when it has answered the client itself."""
    body_limit: int
    data: bool
    """Whether it is the data path."""
    head_timeout: float | None
    """Seconds to wait for the answer's head; None on the data path, where a model may load for minutes."""
    on_end: Callable[[Record], None]
    extra: Headers = ()
    """Further fields of every answer."""
    on_gone: Callable[[str], None] | None = None
    """Told a client's address when its connection, taken over for a WebSocket, ends."""
    on_broken: Callable[["Relay"], None] | None = None
    """Begins it anew, once, when the upstream broke off before it answered; None where that could do harm."""


class Relay:
    """The server side of one relayed request."""

    __slots__ = (
        "_answer",
        "_body_ended",
        "_deadline",
        "_exchange",
        "_plan",
        "_record",
        "_repeated",
        "_request",
        "_responder",
        "_taken",
        "_task",
        "_trailers",
        "over",
    )

    def __init__(self, request: Request, responder: Responder, plan: Plan, record: Record) -> None:
        """Take a request; its content waits until `run` has found the upstream."""
        self._request = request
        self._responder = responder
        self._plan = plan
        self._record = record
        self._exchange: Exchange | None = None
        self._answer = _Answer(self)
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._taken = 0
        self._body_ended = False
        self._trailers: Headers = ()
        self._repeated = False
        self.over = False
        responder.pause_body()

    def runs_in(self, task: asyncio.Task[None]) -> None:
        """Tell which task runs `run`, so that it ends when the client leaves."""
        self._task = task

    async def run(self) -> None:
        """Find the upstream and send the request's head; every fault ends in an answer."""
        try:
            await self._run()
        except (ConnectError, TimeoutError):
            self.fail(Problem.OVERLOADED, "The service behind this server does not answer; try again.")
        except Exception:
            log.exception("a request could not be relayed", extra={"route": self._record.route})
            self.fail(Problem.INTERNAL, NOT_PASSED_ON)

    async def _run(self) -> None:
        if self._request.body.kind is BodyKind.LENGTH and self._request.body.length > self._plan.body_limit:
            self._too_large()
            return
        upstream = await self._plan.connect()
        if upstream is None:
            self.finish()
            return
        request = self._request
        upgrade = request.upgrade == "websocket"
        head = (
            (*upstream.headers, (b"connection", b"upgrade"), (b"upgrade", b"websocket"))
            if upgrade
            else upstream.headers
        )
        self._exchange = upstream.connection.request(request.method, request.target, head, request.body, self._answer)
        if self._plan.head_timeout is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._plan.head_timeout, self._no_head)
        if self._body_ended:
            self._exchange.end(self._trailers)
        else:
            self._responder.resume_body()

    # --- from the client ---

    def on_body(self, data: bytes) -> None:
        """Content of the request."""
        self._taken += len(data)
        if self._taken > self._plan.body_limit:
            self._too_large()
        elif self._exchange is not None:
            self._exchange.write(data)

    def on_body_end(self, trailers: Headers) -> None:
        """The request is complete."""
        self._body_ended = True
        self._trailers = trailers
        if self._exchange is not None:
            self._exchange.end(trailers)

    def on_disconnect(self) -> None:
        """The client left: so does its request."""
        if self._exchange is not None:
            self._exchange.abort()
        elif self._task is not None:
            self._task.cancel()
        if not self._record.status:
            self._record.status = 499  # as nginx logs a client that left before its answer
        self.finish()

    def on_writable(self, writable: bool) -> None:
        """The client takes no more, or again."""
        if self._exchange is None:
            return
        if writable:
            self._exchange.resume_body()
        else:
            self._exchange.pause_body()

    # --- from the upstream ---

    def inform(self, status: int, headers: Headers) -> None:
        """Pass an informational response on."""
        self._responder.inform(status, end_to_end(headers))

    def start(self, status: int, headers: Headers, body: Body) -> None:
        """Pass the head on."""
        if self._deadline is not None:
            self._deadline.cancel()
        if status == 101 and self._request.upgrade != "websocket":
            self.break_off(BadResponseError("expected no switch of protocols, got 101"))
            return
        self._record.status = status
        if status == 101:
            self._switch(headers)
            return
        framing = CHUNKED if body.kind is BodyKind.UNTIL_CLOSE else body
        self._responder.start(
            status, fields.to_client(headers, data=self._plan.data, extra=self._plan.extra), framing
        )

    def write(self, data: bytes) -> None:
        """Pass content on."""
        self._record.sent += len(data)
        self._responder.write(data)

    def end(self, trailers: Headers) -> None:
        """Complete the answer."""
        self._responder.end(trailers)
        self.finish()

    def break_off(self, error: Exception) -> None:
        """The upstream failed: a problem if the answer has not begun, else a cut that the client sees."""
        if self.over:
            return
        if self._record.status:
            self._responder.abort()
            self.finish()
        elif self._plan.on_broken is not None and not self._repeated:
            self._repeated = True
            self._exchange = None
            if self._deadline is not None:
                self._deadline.cancel()
            self._plan.on_broken(self)
        else:
            log.warning("upstream failed", extra={"cause": str(error), "route": self._record.route})
            self.fail(Problem.CONNECTION_LOST, "The service behind this server broke off; try again.")

    def hold_body(self, *, held: bool) -> None:
        """The upstream takes no more of the request, or again."""
        if held:
            self._responder.pause_body()
        else:
            self._responder.resume_body()

    # --- ends ---

    def _switch(self, headers: Headers) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - an answer to it just came
        upstream, from_upstream = exchange.takeover()
        peer = self._responder.peer
        try:
            client, from_client = self._responder.hijack()
        except HttpError:  # the client left in this very moment
            upstream.abort()
            self.finish()
            return
        upgrade: Headers = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"))
        client.write(switching_protocols((*upgrade, *fields.to_upgraded(headers))))
        splice(client, from_client, upstream, from_upstream, self.finish, lambda: self._gone(peer))

    def _gone(self, peer: str) -> None:
        if self._plan.on_gone is not None:
            self._plan.on_gone(peer)

    def _no_head(self) -> None:
        self.fail(Problem.TIMED_OUT, "The service behind this server did not answer in time.")

    def _too_large(self) -> None:
        limit = self._plan.body_limit
        self.fail(Problem.TOO_LARGE, f"Expected at most {limit} bytes of content.")

    def fail(self, problem: Problem, detail: str) -> None:
        """Answer with a problem, or break off what has begun."""
        if self.over:
            return
        if self._exchange is not None:
            self._exchange.abort()
        if self._record.status:
            self._responder.abort()
        else:
            self._record.status = problem.value.status
            again = retry_after("1" if problem in (Problem.OVERLOADED, Problem.CONNECTION_LOST) else None)
            send_problem(self._responder, problem, detail, (*again, *self._plan.extra))
        self.finish()

    def finish(self) -> None:
        """The request is over, however it ended."""
        if not self.over:
            self.over = True
            if self._deadline is not None:
                self._deadline.cancel()
            self._plan.on_end(self._record)


class _Answer:
    """The client side: what the upstream answers goes to the relay."""

    __slots__ = ("on_body", "on_end", "on_error", "on_head", "on_informational", "relay")

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        # Bound once: the chunks of an answer then cost one call less each.
        self.on_informational = relay.inform
        self.on_head = relay.start
        self.on_body = relay.write
        self.on_end = relay.end
        self.on_error = relay.break_off

    def on_writable(self, writable: bool) -> None:
        """The upstream's transport is full, or takes again."""
        self.relay.hold_body(held=not writable)
