"""Takes each request that comes out of the tunnel to where it belongs: an engine, the journal, or a refusal."""

import json
import logging
import secrets

from cloudtolocalllm.bridge.caller import Caller, check_tokens, identify
from cloudtolocalllm.bridge.ends import Inbound
from cloudtolocalllm.bridge.exchange import Desk, Exchange
from cloudtolocalllm.bridge.fields import FieldsRefusedError, framing
from cloudtolocalllm.bridge.follower import StreamFollower
from cloudtolocalllm.bridge.guard import EXCHANGE_ID, JournalRoute, KeysRoute, Route, RouteRefusedError, admit
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
            caller = identify(head.headers, self._desk.keys, self._desk.clock.wall())
            route = admit(head.method, head.target, self._allow)
            if isinstance(route, KeysRoute):
                return self._list_keys(caller, stream, exchange_id)
            if isinstance(route, JournalRoute):
                return self._journal(route, caller, stream)
            if route.merged and (caller.scope.models or len(self._desk.catalog.serving(route.family)) > 1):
                return self._merge(route, caller, head, stream, exchange_id)
            return self._forward(route, caller, head, stream, exchange_id)
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

    def _forward(
        self, route: Route, caller: Caller, head: RequestHead, stream: Stream, exchange_id: str
    ) -> StreamHandler:
        desk = self._desk
        body = framing(route.method, head.headers)
        if route.names_model:
            check_tokens(caller, desk.keys, desk.clock.wall())
        if route.journalled:
            record = desk.journal.open(exchange_id, desk.clock.monotonic(), caller.key)
        else:
            record = Record(exchange_id, owner=caller.key)
        exchange = Exchange(desk, caller, route, head, body, stream, record)
        exchange.start()
        return Inbound(exchange)

    # --- the bridge's own answers ---------------------------------------------------------------------------------

    def _list_keys(self, caller: Caller, stream: Stream, exchange_id: str) -> StreamHandler:
        if not caller.may_list_keys():
            raise RefusalError(Problem.FORBIDDEN, "Only a signed-in person may list the API keys.")
        now = self._desk.clock.wall()
        self._desk.keys.refresh()
        # Of a key that was never met there is nothing to tell but that it is revoked.
        listed = [key.to_json(now) for key in self._desk.keys if key.created]
        return self._answer(200, *_json(json.dumps({"keys": listed}).encode()), stream, exchange_id)

    def _journal(self, route: JournalRoute, caller: Caller, stream: Stream) -> StreamHandler:
        record = self._desk.journal.find(route.exchange_id, self._desk.clock.monotonic())
        if record is None or not caller.may_see(record.owner):
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

    def _merge(
        self, route: Route, caller: Caller, head: RequestHead, stream: Stream, exchange_id: str
    ) -> StreamHandler:
        record = Record(exchange_id)
        watching = Watching(record, StreamFollower(record, stream, bodyless=head.method == "HEAD"), stream)
        self._desk.tasks.start(self._merged(route, caller, record), "joining lists")
        return watching

    async def _merged(self, route: Route, caller: Caller, record: Record) -> None:
        try:
            headers, content = _json(await self._desk.catalog.merged(route, caller.scope))
            status = 200
        except RefusalError as error:
            status, headers, content = problem_response(error)
        self._fill(record, status, headers, content)

    def _refuse(self, refusal: RefusalError, head: RequestHead, stream: Stream, exchange_id: str) -> StreamHandler:
        status, headers, content = problem_response(refusal)
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


def _json(content: bytes) -> tuple[Headers, bytes]:
    """Return the fields and the content of an answer in JSON."""
    length = str(len(content)).encode()
    return (
        (b"content-type", b"application/json"),
        (b"content-length", length),
        (b"cache-control", b"no-store"),
    ), content


def _exchange_id(headers: Headers) -> str:
    """Return the exchange's name: what the client or proxy chose, or a new one."""
    for name, value in headers:
        if name == EXCHANGE_ID_FIELD:
            text = value.decode("latin-1")
            if EXCHANGE_ID.fullmatch(text) is not None:
                return text
    return secrets.token_urlsafe(16)
