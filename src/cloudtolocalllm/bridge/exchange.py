"""One request on its way to an engine, and the engine's answer on its way into a record.

The work of an exchange runs in one task until the request is with the engine; after that everything is callbacks:
content from the tunnel goes to the engine (`ends.Inbound`), the answer goes into the record (`ends.Outbound`), and
the record's followers carry it to their streams.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from cloudtolocalllm.bridge import fields
from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.ends import Outbound
from cloudtolocalllm.bridge.engines.catalog import Catalog
from cloudtolocalllm.bridge.engines.engine import Engine
from cloudtolocalllm.bridge.engines.health import HealthWatch
from cloudtolocalllm.bridge.follower import StreamFollower
from cloudtolocalllm.bridge.guard import Route
from cloudtolocalllm.bridge.intake import Intake, Memory
from cloudtolocalllm.bridge.journal import Journal, Record
from cloudtolocalllm.bridge.keys import KeyList
from cloudtolocalllm.bridge.naming import ModelUnreadableError, canonical, named_models
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError, problem_response
from cloudtolocalllm.bridge.usage import Usage
from cloudtolocalllm.contracts.home import READABLE
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import BadResponseError, Body, BodyKind, ConnectError, Connection, Headers
from cloudtolocalllm.runtime.http1 import Exchange as EngineExchange
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.tunnel import RequestHead, ResetReason

log = logging.getLogger(__name__)

SLOW_START = 0.5
"""Seconds without a response's head after which it is asked whether the engine is loading the model."""
THREAD_ABOVE = 1024 * 1024
"""Bytes of JSON above which it is read in a thread, so that pings and other streams do not wait for it."""
FORWARDED_INFORMATION = frozenset({102, 103})
"""Informational statuses that are passed on; 100 is between the bridge and its engine (RFC 9110 §10.1.1)."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What exchanges share."""

    catalog: Catalog
    health: HealthWatch
    journal: Journal
    tasks: TaskSet
    clock: Clock
    load_grace: float
    keys: KeyList
    memory: Memory = field(default_factory=Memory)
    live: set["Exchange"] = field(default_factory=set)
    """Exchanges that an engine still works for."""

    def key_revoked(self, key_id: str) -> None:
        """Stop what was asked for with a key."""
        for exchange in tuple(self.live):
            if exchange.record.owner == key_id:
                exchange.cancel()

    def device_removed(self, device: str) -> None:
        """Stop what a device asked for."""
        for exchange in tuple(self.live):
            if exchange.record.device == device:
                exchange.cancel()

    def abort(self) -> None:
        """Stop every engine's work: the bridge ends."""
        for exchange in tuple(self.live):
            exchange.abort()


class Exchange:
    """One request that an engine answers."""

    __slots__ = (
        "_body",
        "_caller",
        "_cold",
        "_desk",
        "_engine",
        "_exchange",
        "_head",
        "_linger",
        "_method",
        "_model",
        "_paused",
        "_received",
        "_request_ended",
        "_route",
        "_slow",
        "_started",
        "_task",
        "_waiting",
        "follower",
        "intake",
        "on_loading",
        "record",
        "usage",
    )

    def __init__(
        self, desk: Desk, caller: Caller, route: Route, head: RequestHead, body: Body, stream: Port, record: Record
    ) -> None:
        """Begin; whoever makes it then calls `start`.

        Args:
            desk: What exchanges share.
            caller: Who asks.
            route: Where the request leads.
            head: The request's.
            body: How its content is delimited.
            stream: Where it comes from and the answer goes to.
            record: Where the answer is written.
        """
        self._desk = desk
        self._caller = caller
        self.usage = Usage() if caller.scope.tokens_per_day is not None else None
        """Counts the answer's tokens; None when nobody wants to know."""
        self._route = route
        self._method = route.method
        self._head = head
        self._body = body
        self.record = record
        record.arriving = True
        self.follower = StreamFollower(record, stream, bodyless=head.method == "HEAD")
        self.intake = Intake(stream, body, desk.memory)
        self.on_loading: Callable[[], None] | None = None
        """Called when the engine has to load the model first."""
        self._engine: Engine | None = None
        self._exchange: EngineExchange | None = None
        self._model: str | None = None
        self._cold = False
        """Whether the engine had not loaded the model when the request was sent to it."""
        self._received = 0
        self._request_ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._waiting = False
        self._paused = False
        self._started = desk.clock.monotonic()

    # --- until the request is with the engine ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin the work."""
        self.record.on_drained = self._drained
        self.record.cancel = self.cancel
        self._desk.live.add(self)
        try:
            self._task = self._desk.tasks.start(self._run(), "exchange")
        except RuntimeError:
            self.refuse(RefusalError(Problem.OVERLOADED, "The bridge has too many requests at once."))

    async def _run(self, again: Engine | None = None) -> None:
        try:
            await (self._send() if again is None else self._send_to([again], fresh=True))
        except RefusalError as refusal:
            self.refuse(refusal)
        except Exception:
            log.exception("an exchange failed", extra={"exchange": self.record.id})
            self.refuse(RefusalError(Problem.INTERNAL, "The bridge has logged what it was."))
        finally:
            self._task = None

    async def _send(self) -> None:
        limited = bool(self._caller.scope.models) and self._route.names_model
        models = await self._named_models() if limited or self._desk.catalog.needs_model(self._route) else []
        if limited:
            self._caller.check_models(models)
        engines = await self._desk.catalog.choose(self._route, models)
        if models and self._route.journalled:
            self._model = canonical(models[-1])
        await self._send_to(engines)

    async def _named_models(self) -> list[str]:
        if fields.is_encoded(self._head.headers):
            raise RefusalError(Problem.BAD_REQUEST, "Expected content without Content-Encoding.")
        self.intake.read_whole()
        await self._request_ended.wait()
        content = self.intake.content()
        try:
            if len(content) > THREAD_ABOVE:
                models = await asyncio.to_thread(named_models, content)
            else:
                models = named_models(content)
        except ModelUnreadableError as error:
            raise RefusalError(Problem.BAD_REQUEST, str(error)) from None
        return models

    async def _send_to(self, engines: list[Engine], *, fresh: bool = False) -> None:
        """Send to the first engine that can be reached; until it is, nothing was sent, so trying the next is safe."""
        for engine in engines:
            self._cold = await self._is_cold(engine)
            try:
                connection = await engine.pool.acquire(fresh=fresh)
            except (ConnectError, OSError, TimeoutError):
                engine.failed()
                self._desk.health.suspect(engine)
            else:
                self._engine = engine
                self._request(engine, connection)
                return
        raise RefusalError(
            Problem.ENGINE_UNREACHABLE,
            "Its port takes no connection; see that the engine runs on the machine at home.",
        )

    async def _is_cold(self, engine: Engine) -> bool:
        """Whether an Ollama will load the model for this request. Afterwards it lists a model that it still loads."""
        if self._model is None or not engine.speaks_ollama or self._model in engine.loaded:
            return False
        return await engine.refresh_loaded() and self._model not in engine.loaded

    def _request(self, engine: Engine, connection: Connection) -> None:
        address = engine.address
        try:
            headers = fields.to_engine(self._head.headers, address.authority.encode(), address.authorization)
        except fields.FieldsRefusedError as error:
            connection.close()
            raise RefusalError(Problem.BAD_REQUEST, str(error)) from None
        path = address.prefix + self._route.path
        self._exchange = connection.request(self._method, path, headers, self._body, Outbound(self))
        self._slow = asyncio.get_running_loop().call_later(SLOW_START, self._slow_start)
        if self._body.kind is BodyKind.NONE:
            self._exchange.end()
        else:
            self.intake.pass_to(self._exchange)

    # --- the request's content ------------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Content of the request came."""
        self._received += len(data)
        if self.record.ended:
            self.intake.discard(len(data))
            return
        try:
            self.intake.add(data, self._received)
        except RefusalError as refusal:
            self.refuse(refusal)

    def take_end(self) -> None:
        """The request is complete."""
        self.record.arriving = False
        if not self.record.ended:
            try:
                self.intake.end(self._received)
            except RefusalError as refusal:
                self.refuse(refusal)
        self._request_ended.set()

    # --- a model that is being loaded -----------------------------------------------------------------------------

    def _slow_start(self) -> None:
        self._slow = None
        engine = self._engine
        if engine is None or self._model is None or not engine.speaks_ollama or self.record.ended:
            return
        if self._cold:
            self._wait_began(engine)
        else:
            self._desk.tasks.start(self._look_whether_loading(engine, self._model), "is the model loading")

    async def _look_whether_loading(self, engine: Engine, model: str) -> None:
        if await engine.refresh_loaded(timeout=2.0) and model not in engine.loaded and not self.record.status:
            self._cold = True
            self._wait_began(engine)

    def _wait_began(self, engine: Engine) -> None:
        if not self._waiting and not self.record.status and not self.record.ended:
            self._waiting = True
            engine.wait_began()
            if self.on_loading is not None:
                self.on_loading()

    def _wait_ended(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        if self._waiting and self._engine is not None:
            self._waiting = False
            self._engine.wait_ended()

    # --- the answer -----------------------------------------------------------------------------------------------

    def answered(self, status: int, headers: Headers) -> None:
        """The engine sent its response's head."""
        self._wait_ended()
        engine = self._engine
        if engine is not None:
            engine.answered()
            if self._model is not None and status == 200:
                engine.loaded.add(self._model)
        self.intake.accepted()
        if self.record.ended:  # cancelled while the model was loading; now it is loaded
            self.abort()
            return
        if status < 200 or (300 <= status < 400 and status != 304):
            what = "a redirect, which is never followed" if status >= 300 else "another protocol than was asked for"
            self.refuse(RefusalError(Problem.ENGINE_ERROR, f"It answered with {what}."))
            return
        if self.usage is not None:
            self.usage.begin(next((value for name, value in headers if name == b"content-type"), b""))
        self.record.start(status, self._head_fields(fields.from_engine(headers)))

    def informed(self, status: int, headers: Headers) -> None:
        """The engine sent an informational response."""
        if status in FORWARDED_INFORMATION and not self.record.ended:
            self.record.inform(status, fields.from_engine(headers))

    def grew(self, data: bytes) -> None:
        """The engine sent content."""
        if not self.record.write(data) and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause_body()

    def grew_counted(self, data: bytes) -> None:
        """The engine sent content, which is counted."""
        if self.usage is not None:
            self.usage.feed(data)
        self.grew(data)

    def _count(self) -> None:
        """Charge the key with what the answer cost, once."""
        usage, self.usage = self.usage, None
        if usage is not None and self.record.status == 200:
            self._desk.keys.spend(self._caller.key, usage.total())

    def finished(self, trailers: Headers) -> None:
        """The engine's answer is complete."""
        self._exchange = None
        self._count()
        if self.record.ended:
            self.abort()
        else:
            self._desk.live.discard(self)
            self.record.finish(fields.from_engine(trailers), self._desk.clock.monotonic())
            self._log("answered")

    def failed(self, error: Exception) -> None:
        """The engine broke off, or answered with something that is no HTTP."""
        self._exchange = None
        engine = self._engine
        if self.record.ended or engine is None:
            self.abort()
            return
        if isinstance(error, BadResponseError) and error.retryable and self._may_repeat():
            self._wait_ended()
            self._task = self._desk.tasks.start(self._run(engine), "exchange, once more")
            return
        self._desk.health.suspect(engine)
        if self.record.status:
            self._stop("the engine broke off in the middle of its answer")
        else:
            self.refuse(RefusalError(Problem.ENGINE_ERROR, "It closed the connection without a proper answer."))

    def _may_repeat(self) -> bool:
        """Whether a kept-alive connection that was closed as it was used may cost no more than a second attempt."""
        return self._body.kind is BodyKind.NONE or self.intake.rewind()

    def _drained(self) -> None:
        if self._paused and self._exchange is not None:
            self._paused = False
            self._exchange.resume_body()

    # --- the end --------------------------------------------------------------------------------------------------

    def refuse(self, refusal: RefusalError) -> None:
        """End with a problem document, or, when the answer has begun, by breaking it off."""
        if self.record.ended:
            return
        if self.record.status:
            self._stop(str(refusal))
            return
        self.abort()
        status, headers, content = problem_response(refusal)
        self.record.start(status, self._head_fields(headers))
        if self._method != "HEAD":
            self.record.write(content)
        self.record.finish((), self._desk.clock.monotonic())
        self._log(refusal.problem.value.slug)

    def _head_fields(self, headers: Headers) -> Headers:
        """Return the fields of the answer's head with those that are ours."""
        named = (*headers, (b"c2l-exchange-id", self.record.id.encode()))
        return named if self._caller.device else (*named, READABLE)

    def reset(self, reason: ResetReason) -> None:
        """The request's own stream is gone: stop, unless it was only the tunnel that was lost."""
        self.follower.leave()
        if reason is ResetReason.SESSION_LOST and self.intake.ended and self.record.kept:
            log.info("an answer goes on into the journal", extra={"exchange": self.record.id})
            return
        self.cancel()

    def cancel(self) -> None:
        """Stop the engine's work at once; but let it load a model to the end, for the next request needs it."""
        if self.record.ended:
            return
        if self._cold and self._exchange is not None and not self.record.status:
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(self._desk.load_grace, self.abort)
            self.intake.release()
            self.record.break_off("cancelled", self._desk.clock.monotonic())
            self._log("cancelled; the model goes on loading")
            return
        self._stop("cancelled")

    def _stop(self, why: str) -> None:
        self.abort()
        self.record.break_off(why, self._desk.clock.monotonic())
        self._log(why)

    def abort(self) -> None:
        """Have the engine stop; without a word to those who read."""
        self._count()
        self._desk.live.discard(self)
        self._wait_ended()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.intake.release()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()

    def _log(self, outcome: str) -> None:
        log.info(
            "exchange ended",
            extra={
                "exchange": self.record.id,
                "route": self._route.path,
                "engine": self._engine.id if self._engine is not None else None,
                "status": self.record.status or None,
                "bytes": self.record.size,
                "seconds": round(self._desk.clock.monotonic() - self._started, 3),
                "outcome": outcome,
            },
        )
