"""Takes each request that comes out of the tunnel to where it belongs: an engine, the journal, or a refusal.

A request in the clear comes as it is (`__call__`); one that was sealed comes from the gateway, opened and proved to
be a device's (`serve`), and is treated alike.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cloudtolocalllm.bridge.caller import Caller, check_tokens, identify
from cloudtolocalllm.bridge.ends import Inbound
from cloudtolocalllm.bridge.exchange import Desk, Exchange
from cloudtolocalllm.bridge.fields import FieldsRefusedError, framing
from cloudtolocalllm.bridge.follower import StreamFollower, Watching
from cloudtolocalllm.bridge.guard import EXCHANGE_ID, JournalRoute, Route, RouteRefusedError, admit
from cloudtolocalllm.bridge.journal import ExchangeRunsError, Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.contracts.authorize import SEALED_PREFIX
from cloudtolocalllm.contracts.home import READABLE
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import Stream, StreamHandler
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import RequestHead

log = logging.getLogger(__name__)

EXCHANGE_ID_FIELD = b"c2l-exchange-id"
PLAIN_OFF = (
    "The server could read it in passing. Use the local endpoint of `cloudtolocalllm connect`, or the page, which "
    "seal what they send; or set C2L_BRIDGE_PLAIN=on for the bridge at home."
)

Gateway = Callable[[RequestHead, Stream, Caller], StreamHandler]
"""Takes sealed requests."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and where its answer goes."""

    head: RequestHead
    port: Port
    caller: Caller
    exchange_id: str
    named: bool = False
    """Whether a device chose the exchange's name, so that it may take the answer up again."""

    @property
    def bodyless(self) -> bool:
        """Whether only the head is wanted."""
        return self.head.method == "HEAD"


class BridgeAcceptor:
    """The bridge's side of every stream."""

    def __init__(self, desk: Desk, *, allow: tuple[str, ...] = (), plain: bool = True) -> None:
        """Make an acceptor.

        Args:
            desk: What requests need.
            allow: Which optional routes are switched on.
            plain: Whether engines are asked for what was not sealed.
        """
        self._desk = desk
        self._allow = allow
        self._plain = plain
        self.gateway: Gateway | None = None
        """Takes what is below SEALED_PREFIX."""

    def __call__(self, head: RequestHead, stream: Stream) -> StreamHandler:
        """Take a new request."""
        nobody = Asked(head, stream, Caller(), _exchange_id(head.headers))
        return self._guarded(nobody, lambda: self._outer(head, stream, nobody.exchange_id))

    def serve(self, head: RequestHead, port: Port, caller: Caller, exchange: str | None) -> StreamHandler:
        """Take a request that was sealed.

        Args:
            head: What stood inside.
            port: Seals the answer.
            caller: Whose device proved to have made it, and who may use this route.
            exchange: The name that the device chose for it, or None.
        """
        asked = Asked(head, port, caller, exchange or secrets.token_urlsafe(16), exchange is not None)
        return self._guarded(asked, lambda: self._take(admit(head.method, head.target, self._allow), asked))

    def _outer(self, head: RequestHead, stream: Stream, exchange_id: str) -> StreamHandler:
        caller = identify(head.headers, self._desk.keys, self._desk.clock.wall())
        if head.target.startswith(SEALED_PREFIX) and self.gateway is not None:
            return self.gateway(head, stream, caller)
        route = admit(head.method, head.target, self._allow)
        if isinstance(route, Route) and not self._plain:
            raise RefusalError(Problem.PLAIN_OFF, PLAIN_OFF)
        return self._take(route, Asked(head, stream, caller, exchange_id))

    def _take(self, route: Route | JournalRoute, asked: Asked) -> StreamHandler:
        if isinstance(route, JournalRoute):
            return self._journal(route, asked)
        if route.merged and (asked.caller.scope.models or len(self._desk.catalog.serving(route.family)) > 1):
            return self._merge(route, asked)
        return self._forward(route, asked)

    def _guarded(self, asked: Asked, take: Callable[[], StreamHandler]) -> StreamHandler:
        """Take a request, or answer why not."""
        try:
            return take()
        except RouteRefusedError as error:
            log.info("a route was refused")
            refusal = RefusalError(Problem.ROUTE_REFUSED, str(error))
        except FieldsRefusedError as error:
            refusal = RefusalError(Problem.BAD_REQUEST, str(error))
        except ExchangeRunsError:
            refusal = RefusalError(Problem.BAD_REQUEST, "Expected an exchange id that is not in use.")
        except RefusalError as error:
            refusal = error
        return self._refuse(refusal, asked)

    def _forward(self, route: Route, asked: Asked) -> StreamHandler:
        desk, caller = self._desk, asked.caller
        body = framing(route.method, asked.head.headers)
        if route.names_model:
            check_tokens(caller, desk.keys, desk.clock.wall())
        # What a device has named is kept whatever it is; else only generated text is worth it.
        kept = asked.named if caller.device else route.journalled
        exchange = Exchange(desk, caller, route, asked.head, body, asked.port, self._record(asked, kept=kept))
        exchange.start()
        return Inbound(exchange)

    def _record(self, asked: Asked, *, kept: bool) -> Record:
        """Begin the record of an answer.

        Raises:
            ExchangeRunsError: One of the same name runs.
        """
        caller = asked.caller
        if not kept:
            return Record(asked.exchange_id, owner=caller.key, device=caller.device)
        record = self._desk.journal.open(
            asked.exchange_id, self._desk.clock.monotonic(), caller.key, caller.device
        )  # fmt: skip
        record.request = f"{asked.head.method} {asked.head.target}"
        return record

    # --- the bridge's own answers ---------------------------------------------------------------------------------

    def _journal(self, route: JournalRoute, asked: Asked) -> StreamHandler:
        journal, now, device = self._desk.journal, self._desk.clock.monotonic(), asked.caller.device
        record = journal.find(route.exchange_id, now, device)
        if record is None and device and route.method == "DELETE":
            # What is stopped may come after its stop: a relay need not keep their order.
            record = journal.open(route.exchange_id, now, asked.caller.key, device)
        if record is None or not (device or asked.caller.may_see(record.owner)):
            raise RefusalError(Problem.NOT_FOUND, "No such exchange is running, and no answer of that name is kept.")
        if route.method == "DELETE":
            record.stop(now)
            return self._answer(204, (), b"", Asked(asked.head, asked.port, asked.caller, route.exchange_id))
        if not record.kept:
            raise RefusalError(Problem.NOT_FOUND, "The answer has become too large to be kept for re-attaching.")
        if route.offset > record.size:
            raise RefusalError(Problem.BAD_REQUEST, "The offset lies behind the end of the answer.")
        follower = StreamFollower(record, asked.port, offset=route.offset, replay=True, bodyless=asked.bodyless)
        return Watching(record, follower, asked.port)

    def _merge(self, route: Route, asked: Asked) -> StreamHandler:
        record = self._record(asked, kept=asked.named)
        follower = StreamFollower(record, asked.port, bodyless=asked.bodyless)
        self._desk.tasks.start(self._merged(route, asked.caller, record), "joining lists")
        return Watching(record, follower, asked.port)

    async def _merged(self, route: Route, caller: Caller, record: Record) -> None:
        try:
            headers, content = _json(await self._desk.catalog.merged(route, caller.scope))
            status = 200
        except RefusalError as error:
            status, headers, content = problem_response(error)
        self._fill(record, status, headers if caller.device else (*headers, READABLE), content)

    def _refuse(self, refusal: RefusalError, asked: Asked) -> StreamHandler:
        status, headers, content = problem_response(refusal)
        return self._answer(status, headers, b"" if asked.bodyless else content, asked)

    def _answer(self, status: int, headers: Headers, content: bytes, asked: Asked) -> StreamHandler:
        record = Record(asked.exchange_id)
        watching = Watching(record, StreamFollower(record, asked.port), asked.port)
        self._fill(record, status, headers, content)
        return watching

    def _fill(self, record: Record, status: int, headers: Headers, content: bytes) -> None:
        if record.ended:  # stopped meanwhile
            return
        record.start(status, (*headers, (EXCHANGE_ID_FIELD, record.id.encode())))
        if content:
            record.write(content)
        record.finish((), self._desk.clock.monotonic())


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
