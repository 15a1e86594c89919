"""The edge's application: one call a request, by route."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge import headers as fields
from cloudtolocalllm.edge.answers import Answered, send_problem
from cloudtolocalllm.edge.authorize import Allowed, Authorizer
from cloudtolocalllm.edge.pools import Pools
from cloudtolocalllm.edge.relay import Plan, Record, Relay, Upstream
from cloudtolocalllm.edge.routes import Route, host_name, hosts, is_plain, route
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.edge.static import Site
from cloudtolocalllm.runtime.http1 import ConnectError, Pool, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.tasks import TaskSet

access = logging.getLogger("edge.access")

MAX_STARTING = 10_000
"""Requests at once that wait for the API's decision or a connection."""
API_HEAD_TIMEOUT = 30.0
"""Seconds that the API has for an answer's head."""


class Edge:
    """Serves requests; owns the connections to the API and the proxies."""

    def __init__(self, settings: EdgeSettings, site: Site | None) -> None:
        self._settings = settings
        self._site = site
        self._hosts = hosts(settings.domain, settings.listen_host, settings.allowed_hosts)
        self._api = Pool(str(settings.api), max_idle=32, connect_timeout=5.0)
        self._authorizer = Authorizer(self._api, settings.authorize_timeout)
        self._pools = Pools()
        self._tasks = TaskSet(limit=MAX_STARTING)

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request whose head is complete."""
        loop = asyncio.get_running_loop()
        where = route(request.path)
        id_ = fields.request_id(request.field(b"x-request-id"))
        record = Record(request.method, where.value, id_, loop.time())
        fault = self._fault(request)
        if fault is not None:
            return self._refuse(responder, record, *fault)
        if where is Route.HEALTH:
            record.status = 200
            responder.respond(200, ((b"content-type", b"application/json"), *fields.SECURITY), b'{"status":"ok"}')
            self._log(record)
            return Answered()
        if where is Route.STATIC:
            return self._static(request, responder, record)
        if where is Route.NOTHING:
            return self._refuse(responder, record, Problem.NOT_FOUND, "This server has no such route.")
        if where in (Route.TUNNEL, Route.API_WEBSOCKET) and request.upgrade != "websocket":
            return self._refuse(responder, record, Problem.BAD_REQUEST, "Expected a WebSocket upgrade.")
        return self._relay(request, responder, record, where)

    async def close(self) -> None:
        """Give up what is being started and close idle connections."""
        await self._tasks.close()
        await self._pools.close()
        await self._api.close()

    # --- answered here ---

    def _fault(self, request: Request) -> tuple[Problem, str] | tuple[Problem, str, int] | None:
        name = host_name(request.field(b"host") or b"")
        if name is None or name not in self._hosts:
            return Problem.NOT_FOUND, "This server is not responsible for the host that was asked for.", 421
        if not is_plain(request.path):
            return Problem.BAD_REQUEST, "Expected a path without dot segments, empty segments and encoded slashes."
        # An upgrade to anything but WebSocket is ignored and not passed on (RFC 9110 §7.8): Java's HTTP client and
        # `curl --http2` offer h2c with every request that they send in clear.
        return None

    def _refuse(
        self, responder: Responder, record: Record, problem: Problem, detail: str, status: int | None = None
    ) -> RequestHandler:
        record.status = status or problem.value.status
        send_problem(responder, problem, detail, status=status)
        self._log(record)
        return Answered()

    def _static(self, request: Request, responder: Responder, record: Record) -> RequestHandler:
        if request.method not in ("GET", "HEAD"):
            return self._refuse(responder, record, Problem.METHOD_NOT_ALLOWED, "Expected GET or HEAD.")
        answer = self._site.answer(request) if self._site is not None else None
        if answer is None:
            return self._refuse(responder, record, Problem.NOT_FOUND, "This server has no such page.")
        record.status, record.sent = answer.status, len(answer.content)
        responder.respond(answer.status, answer.headers, answer.content)
        self._log(record)
        return Answered()

    # --- passed on ---

    def _relay(self, request: Request, responder: Responder, record: Record, where: Route) -> RequestHandler:
        data = where in (Route.DATA, Route.TUNNEL)
        connect: Callable[[], Awaitable[Upstream | None]]
        if data:
            connect = lambda: self._to_proxy(request, responder, record)  # noqa: E731 - binds this request
        else:
            connect = lambda: self._to_api(request, responder, record)  # noqa: E731 - binds this request
        limit = self._settings.data_body_limit if data else self._settings.api_body_limit
        relay = Relay(
            request, responder, Plan(connect, limit, data, None if data else API_HEAD_TIMEOUT, self._log), record
        )
        try:
            relay.runs_in(self._tasks.start(relay.run(), f"relay {where.value}"))
        except RuntimeError:
            relay.fail(Problem.OVERLOADED, "Too many requests are being started; try again.")
        return relay

    async def _to_api(self, request: Request, responder: Responder, record: Record) -> Upstream:
        connection = await self._api.acquire()
        return Upstream(connection, fields.to_api(request.headers, record.request_id, responder.peer))

    async def _to_proxy(self, request: Request, responder: Responder, record: Record) -> Upstream | None:
        """Ask the API where to, and connect; ask once more when that proxy is no more."""
        fresh = False
        while True:
            decision = await self._authorizer.ask(request, record.request_id, fresh=fresh)
            if not isinstance(decision, Allowed):
                record.status = decision.status
                send_problem(
                    responder,
                    decision.problem,
                    decision.detail,
                    status=decision.status,
                    retry_after=decision.retry_after,
                )
                return None
            try:
                connection = await self._pools.of(decision.endpoint).acquire()
            except ConnectError:
                await self._pools.forget(decision.endpoint)
                if fresh:
                    raise
                fresh = True
                continue
            return Upstream(connection, fields.to_proxy(request.headers, record.request_id, decision.assertion))

    def _log(self, record: Record) -> None:
        access.info(
            "request",
            extra={
                "method": record.method,
                "route": record.route,
                "status": record.status,
                "bytes": record.sent,
                "seconds": round(asyncio.get_running_loop().time() - record.started, 4),
                "request_id": record.request_id.decode(),
            },
        )
