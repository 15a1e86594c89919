"""Takes each request that comes out of the tunnel to where it belongs: an engine, the journal, or a refusal."""

import logging
import secrets

from cloudtolocalllm.bridge.ends import Inbound
from cloudtolocalllm.bridge.exchange import Desk, Exchange
from cloudtolocalllm.bridge.fields import FieldsRefusedError, framing
from cloudtolocalllm.bridge.follower import StreamFollower
from cloudtolocalllm.bridge.guard import EXCHANGE_ID, JournalRoute, Route, RouteRefusedError, admit
from cloudtolocalllm.bridge.journal import ExchangeRunsError, Record
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import Stream, StreamHandler
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import RequestHead, ResetReason

log = logging.getLogger(__name__)

EXCHANGE_ID_FIELD = b"c2l-exchange-id"


class BridgeAcceptor:
    """The bridge's side of every stream."""

    def __init__(self, desk: Desk, *, allow: tuple[str, ...] = ()) -> None:
        """Make an acceptor.

        Args:
            desk: What requests need.
            allow: Which optional routes are switched on.
        """
        self._desk = desk
        self._allow = allow

    def __call__(self, head: RequestHead, stream: Stream) -> StreamHandler:
        """Take a new request."""
        exchange_id = _exchange_id(head.headers)
        try:
            route = admit(head.method, head.target, self._allow)
            if isinstance(route, JournalRoute):
                return self._journal(route, stream)
            if route.merged and len(self._desk.catalog.serving(route.family)) > 1:
                return self._merge(route, head, stream, exchange_id)
            return self._forward(route, head, stream, exchange_id)
        except RouteRefusedError as error:
            log.info("a route was refused")
            refusal = RefusalError(Problem.ROUTE_REFUSED, str(error))
        except FieldsRefusedError as error:
            refusal = RefusalError(Problem.BAD_REQUEST, str(error))
        except ExchangeRunsError:
            refusal = RefusalError(Problem.BAD_REQUEST, "Expected an exchange id that is not in use.")
        except RefusalError as error:
            refusal = error
        return self._refuse(refusal, head, stream, exchange_id)

    def _forward(self, route: Route, head: RequestHead, stream: Stream, exchange_id: str) -> StreamHandler:
        body = framing(route.method, head.headers)
        if route.journalled:
            record = self._desk.journal.open(exchange_id, self._desk.clock.monotonic())
        else:
            record = Record(exchange_id)
        exchange = Exchange(self._desk, route, head, body, stream, record)
        exchange.start()
        return Inbound(exchange)

    # --- the bridge's own answers ---------------------------------------------------------------------------------

    def _journal(self, route: JournalRoute, stream: Stream) -> StreamHandler:
        record = self._desk.journal.find(route.exchange_id, self._desk.clock.monotonic())
        if record is None:
            raise RefusalError(Problem.NOT_FOUND, "No such exchange is running, and no answer of that name is kept.")
        if route.method == "DELETE":
            if record.cancel is not None:
                record.cancel()
            return self._answer(204, (), b"", stream, route.exchange_id)
        if not record.kept:
            raise RefusalError(Problem.NOT_FOUND, "The answer has become too large to be kept for re-attaching.")
        if route.offset > record.size:
            raise RefusalError(Problem.BAD_REQUEST, "The offset lies behind the end of the answer.")
        follower = StreamFollower(record, stream, offset=route.offset, replay=True, bodyless=route.method == "HEAD")
        return Watching(record, follower, stream)

    def _merge(self, route: Route, head: RequestHead, stream: Stream, exchange_id: str) -> StreamHandler:
        record = Record(exchange_id)
        watching = Watching(record, StreamFollower(record, stream, bodyless=head.method == "HEAD"), stream)
        self._desk.tasks.start(self._merged(route, record), "joining lists")
        return watching

    async def _merged(self, route: Route, record: Record) -> None:
        try:
            content = await self._desk.catalog.merged(route)
            headers: Headers = (
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
            )
            status = 200
        except RefusalError as error:
            status, headers, content = problem_response(error.problem, error.detail)
        self._fill(record, status, headers, content)

    def _refuse(self, refusal: RefusalError, head: RequestHead, stream: Stream, exchange_id: str) -> StreamHandler:
        status, headers, content = problem_response(refusal.problem, refusal.detail)
        return self._answer(status, headers, b"" if head.method == "HEAD" else content, stream, exchange_id)

    def _answer(
        self, status: int, headers: Headers, content: bytes, stream: Stream, exchange_id: str
    ) -> StreamHandler:
        record = Record(exchange_id)
        watching = Watching(record, StreamFollower(record, stream), stream)
        self._fill(record, status, headers, content)
        return watching

    def _fill(self, record: Record, status: int, headers: Headers, content: bytes) -> None:
        record.start(status, (*headers, (EXCHANGE_ID_FIELD, record.id.encode())))
        if content:
            record.write(content)
        record.finish((), self._desk.clock.monotonic())


class Watching:
    """The handler of a stream that reads a record and whose own content means nothing."""

    __slots__ = ("_follower", "_record", "_stream")

    def __init__(self, record: Record, follower: StreamFollower, stream: Stream) -> None:
        self._record = record
        self._follower = follower
        self._stream = stream

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Content that is not wanted is read over, so that the tunnel's credit comes back."""
        self._stream.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        """The request is complete."""

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The reader went away; what it read goes on."""
        self._follower.leave()

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self._follower.pump():
            self._record.drained()


def _exchange_id(headers: Headers) -> str:
    """Return the exchange's name: what the client or proxy chose, or a new one."""
    for name, value in headers:
        if name == EXCHANGE_ID_FIELD:
            text = value.decode("latin-1")
            if EXCHANGE_ID.fullmatch(text) is not None:
                return text
    return secrets.token_urlsafe(16)
