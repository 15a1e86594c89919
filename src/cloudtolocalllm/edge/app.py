"""The edge's application: one call a request, by route."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.edge import headers as fields
from cloudtolocalllm.edge import origins
from cloudtolocalllm.edge.answers import Answered, send_problem
from cloudtolocalllm.edge.authorize import Allowed, Authorizer
from cloudtolocalllm.edge.clients import Client, Clients, is_loopback
from cloudtolocalllm.edge.gate import ConnectionGate
from cloudtolocalllm.edge.limits import Kind, Limits, kind_of
from cloudtolocalllm.edge.origins import Origins, Standing
from cloudtolocalllm.edge.pools import Pools
from cloudtolocalllm.edge.relay import Plan, Record, Relay, Upstream
from cloudtolocalllm.edge.replicas import Replicas
from cloudtolocalllm.edge.routes import Route, host_name, hosts, is_plain, route
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.edge.watch import NoWatch, Watch
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1 import (
    BodyKind,
    ConnectError,
    Headers,
    HttpServer,
    Pool,
    Request,
    RequestHandler,
    Responder,
)
from cloudtolocalllm.runtime.http1.client import IDEMPOTENT
from cloudtolocalllm.runtime.site import Site
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)
access = logging.getLogger("edge.access")

MAX_STARTING = 10_000
"""Requests at once that wait for the API's decision or a connection."""
API_HEAD_TIMEOUT = 30.0
"""Seconds that the API has for an answer's head."""
CONNECT_TIMEOUT = 3.0
"""Seconds for a connection to a replica of the API: so that the next one is asked while a client still waits."""

_JUDGED = frozenset({Route.API, Route.API_WEBSOCKET, Route.DATA, Route.TUNNEL})
"""Routes that another site's page may not use."""


@dataclass(slots=True)
class Visit:
    """A request, who sent it, and where it goes."""

    request: Request
    responder: Responder
    record: Record
    where: Route
    client: Client
    extra: Headers = ()
    """Fields of every answer to it."""


class Edge:
    """Serves requests; owns the connections to the API and the proxies."""

    def __init__(
        self, settings: EdgeSettings, site: Site | None, *, watch: Watch | None = None, clock: Clock | None = None
    ) -> None:
        """Make an edge.

        Args:
            settings: What was configured.
            site: The page; None when there is none.
            watch: Told of refusals; None for nobody.
            clock: None for the system's.
        """
        self._settings = settings
        self._site = site
        self._watch = watch or NoWatch()
        self._hosts = hosts(settings.domain, settings.listen_host, settings.allowed_hosts)
        self._clients = Clients(settings.trusted_proxies)
        self._origins = Origins(settings.cors_origins)
        self._exempts_loopback = (
            is_loopback(settings.listen_host) and not settings.domain and not settings.limit_loopback
        )
        now = (clock or SystemClock()).monotonic
        self._limits = Limits(
            {
                Kind.SIGN_IN: settings.limit_sign_in,
                Kind.API: settings.limit_api,
                Kind.DATA: settings.limit_data,
                Kind.STATIC: settings.limit_static,
            },
            now,
        )
        self._gate: ConnectionGate | None = None
        if settings.limit_connections > 0:
            self._gate = ConnectionGate(
                settings.limit_connections, self._clients, self._watch, now, exempts_loopback=self._exempts_loopback
            )
        pools = [Pool(str(api), max_idle=32, connect_timeout=CONNECT_TIMEOUT) for api in settings.api]
        self._api = Replicas(pools, now)
        self._authorizer = Authorizer(self._api, settings.authorize_timeout)
        self._pools = Pools()
        self._tasks = TaskSet(limit=MAX_STARTING)
        self._warn()

    def server(self) -> HttpServer:
        """Return the server that serves it, not listening yet."""
        return HttpServer(self, error_headers=fields.SECURITY, gate=self._gate)

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request whose head is complete."""
        where = route(request.path)
        id_ = fields.request_id(request.field(b"x-request-id"))
        record = Record(request.method, where.value, id_, asyncio.get_running_loop().time())
        visit = Visit(request, responder, record, where, self._clients.of(request, responder.peer))
        turned_away = self._defend(visit)
        if turned_away is not None:
            return turned_away
        if where is Route.HEALTH:
            record.status = 200
            responder.respond(200, ((b"content-type", b"application/json"), *fields.SECURITY), b'{"status":"ok"}')
            self._log(record)
            return Answered()
        if where is Route.STATIC:
            return self._static(visit)
        if where is Route.NOTHING:
            return self._refuse(visit, Problem.NOT_FOUND, "This server has no such route.")
        if where in (Route.TUNNEL, Route.API_WEBSOCKET) and request.upgrade != "websocket":
            return self._refuse(visit, Problem.BAD_REQUEST, "Expected a WebSocket upgrade.")
        return self._relay(visit)

    async def close(self) -> None:
        """Give up what is being started and close idle connections."""
        await self._tasks.close()
        await self._pools.close()
        await self._api.close()

    def _warn(self) -> None:
        settings = self._settings
        if settings.domain and is_loopback(settings.listen_host) and not settings.trusted_proxies:
            log.warning(
                "a domain is set, but only this machine can connect and C2L_EDGE_TRUSTED_PROXIES is empty: "
                "all clients behind a reverse proxy here count as one"
            )

    # --- turned away ---

    def _defend(self, visit: Visit) -> RequestHandler | None:
        """Answer a request that goes no further; None for the others."""
        standing = Standing.NONE
        if visit.where in _JUDGED:
            standing = self._origins.judge(visit.request, visit.client.scheme)
            if visit.where is Route.DATA and self._origins.any_allowed:
                self._share(visit, standing)
        return self._limited(visit) or self._misdirected(visit) or self._cross_origin(visit, standing)

    def _share(self, visit: Visit, standing: Standing) -> None:
        """Let a page of an allowed origin read the answer, whatever it will be; its cookies do not count."""
        if standing is not Standing.ALLOWED:
            visit.extra = origins.VARY
            return
        visit.extra = origins.answer_fields(visit.request.field(b"origin") or b"")
        visit.request = replace(
            visit.request, headers=tuple(field for field in visit.request.headers if field[0] != b"cookie")
        )

    def _limited(self, visit: Visit) -> RequestHandler | None:
        client, where = visit.client, visit.where
        if self._exempts_loopback and client.loopback:
            return None
        limited = self._limits.take(client.bucket, kind_of(where, visit.request.path))
        if limited is None:
            return None
        if limited.first:
            self._watch.on_limited(client, limited.kind.value, where, visit.record.request_id)
        visit.extra = (*visit.extra, *limited.fields)
        detail = f"Expected at most {limited.rate} of such requests from one address; wait and try again."
        return self._refuse(visit, Problem.RATE_LIMITED, detail)

    def _misdirected(self, visit: Visit) -> RequestHandler | None:
        name = host_name(visit.request.field(b"host") or b"")
        if name is None or name not in self._hosts:
            self._watch.on_refused(visit.client, "host", visit.where, visit.record.request_id)
            detail = "This server does not answer to that host name; its owner can allow more of them."
            return self._refuse(visit, Problem.NOT_FOUND, detail, 421)
        if not is_plain(visit.request.path):
            detail = "Expected a path without dot segments, empty segments and encoded slashes."
            return self._refuse(visit, Problem.BAD_REQUEST, detail)
        # An upgrade to anything but WebSocket is ignored and not passed on (RFC 9110 §7.8): Java's HTTP client and
        # `curl --http2` offer h2c with every request that they send in clear.
        return None

    def _cross_origin(self, visit: Visit, standing: Standing) -> RequestHandler | None:
        if standing is Standing.ALLOWED and visit.where is Route.DATA:
            return self._preflight(visit) if origins.is_preflight(visit.request) else None
        if standing in (Standing.NONE, Standing.OURS):
            return None
        self._watch.on_refused(visit.client, "origin", visit.where, visit.record.request_id)
        detail = "Expected a page of this server, or on the routes to models one of an origin that its owner allows."
        return self._refuse(visit, Problem.FORBIDDEN, detail)

    def _preflight(self, visit: Visit) -> RequestHandler:
        visit.record.status = 204
        headers = (*fields.SECURITY, *visit.extra, *origins.preflight_fields(visit.request))
        visit.responder.respond(204, headers, b"")
        self._log(visit.record)
        return Answered()

    # --- answered here ---

    def _refuse(self, visit: Visit, problem: Problem, detail: str, status: int | None = None) -> RequestHandler:
        visit.record.status = status or problem.value.status
        send_problem(visit.responder, problem, detail, visit.extra, status=status)
        self._log(visit.record)
        return Answered()

    def _static(self, visit: Visit) -> RequestHandler:
        request, record = visit.request, visit.record
        if request.method not in ("GET", "HEAD"):
            return self._refuse(visit, Problem.METHOD_NOT_ALLOWED, "Expected GET or HEAD.")
        answer = self._site.answer(request) if self._site is not None else None
        if answer is None:
            return self._refuse(visit, Problem.NOT_FOUND, "This server has no such page.")
        record.status, record.sent = answer.status, len(answer.content)
        visit.responder.respond(answer.status, answer.headers, answer.content)
        self._log(record)
        return Answered()

    # --- passed on ---

    def _relay(self, visit: Visit) -> RequestHandler:
        data = visit.where in (Route.DATA, Route.TUNNEL)
        connect: Callable[[], Awaitable[Upstream | None]]
        connect = (lambda: self._to_proxy(visit)) if data else (lambda: self._to_api(visit))
        plan = Plan(
            connect,
            self._settings.data_body_limit if data else self._settings.api_body_limit,
            data,
            None if data else API_HEAD_TIMEOUT,
            self._log,
            visit.extra,
            None if self._gate is None else self._gate.closed,
            None if data or not _may_be_repeated(visit.request) else self._begin,
        )
        relay = Relay(visit.request, visit.responder, plan, visit.record)
        self._begin(relay)
        return relay

    def _begin(self, relay: Relay) -> None:
        try:
            relay.runs_in(self._tasks.start(relay.run(), "relay"))
        except RuntimeError:
            relay.fail(Problem.OVERLOADED, "Too many requests are being started; try again.")

    async def _to_api(self, visit: Visit) -> Upstream:
        connection = await self._api.acquire()
        client = visit.client
        headers = fields.to_api(
            visit.request.headers, visit.record.request_id, client.address, client.scheme or b"http"
        )
        return Upstream(connection, headers)

    async def _to_proxy(self, visit: Visit) -> Upstream | None:
        """Ask the API where to, and connect; ask once more when that proxy is no more."""
        request, record = visit.request, visit.record
        fresh = False
        while True:
            decision = await self._authorizer.ask(request, record.request_id, fresh=fresh)
            if not isinstance(decision, Allowed):
                record.status = decision.status
                extra = (*decision.fields, *visit.extra)
                send_problem(visit.responder, decision.problem, decision.detail, extra, status=decision.status)
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


def _may_be_repeated(request: Request) -> bool:
    """Tell whether another replica may be asked the same when one died over it (RFC 9110 §9.2.2)."""
    return request.method in IDEMPOTENT and request.body.kind is BodyKind.NONE and request.upgrade is None
