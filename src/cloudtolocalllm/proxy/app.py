"""What the proxy does with each request: whose it is, and where it goes."""

import hmac
import json
import logging
import re

from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion, AssertionRefusedError, manager_token, verify
from cloudtolocalllm.contracts.authorize import ASSERTION, TUNNEL_TARGET
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import TunnelServer
from cloudtolocalllm.proxy import forwarding, problems
from cloudtolocalllm.proxy.exchange import Exchange
from cloudtolocalllm.proxy.leases import Leases
from cloudtolocalllm.proxy.limits import Limiter
from cloudtolocalllm.proxy.selection import Bridges
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.proxy.stats import Stats
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.http1 import Headers, Request, RequestHandler, Responder

log = logging.getLogger(__name__)

_EXCHANGES = "/c2l/exchanges/"
_DISCONNECT = re.compile(r"/bridges/([A-Za-z0-9_-]{1,64})/disconnect", re.ASCII)


class _Answered:
    """Handles what still comes of a request that has its answer."""

    def on_body(self, data: bytes) -> None:
        """Not wanted."""

    def on_body_end(self, trailers: Headers) -> None:
        """Not wanted."""

    def on_disconnect(self) -> None:
        """Nothing is under way."""

    def on_writable(self, writable: bool) -> None:
        """Nothing is under way."""


_ANSWERED = _Answered()


class ProxyApp:
    """The routes: the manager's two, the bridges' one, and everything else to a bridge."""

    def __init__(
        self, settings: ProxySettings, tunnels: TunnelServer, bridges: Bridges, stats: Stats, clock: Clock
    ) -> None:
        self._settings = settings
        self._tunnels = tunnels
        self._bridges = bridges
        self._stats = stats
        self._clock = clock
        self._limiter = Limiter(stats, clock)
        self._leases = Leases(tunnels, clock)
        self._manager = b"Bearer " + manager_token(settings.key).encode()
        self._user: str | None = None
        self._draining = False
        self.exchanges: set[Exchange] = set()

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request."""
        path = request.path
        if path == TUNNEL_TARGET:
            return self._tunnel(request, responder)
        if path in ("/healthz", "/stats"):
            return self._manage(request, responder, path)
        if path.startswith("/bridges/"):  # an edge passes no such path on
            return self._disconnect(request, responder, path)
        return self._forward(request, responder)

    def drain(self) -> None:
        """Take no more requests; those that wait for a bridge are answered now."""
        self._draining = True
        self._bridges.close()
        self._leases.close()

    def _forward(self, request: Request, responder: Responder) -> RequestHandler:
        claims = self._verified(request, responder, CLIENT)
        if claims is None:
            return _ANSWERED
        exchange_id = forwarding.exchange_id(request)
        if not request.target.startswith("/"):  # OPTIONS * is about a server, and home is none
            problems.respond(responder, Problem.BAD_REQUEST, "Expected a path.", exchange_id)
            return _ANSWERED
        if self._draining or len(self.exchanges) >= self._settings.max_in_flight:
            detail = "This relay is restarting" if self._draining else "Too many requests are under way"
            problems.respond(responder, Problem.OVERLOADED, f"{detail}; try again shortly.", exchange_id)
            return _ANSWERED
        stop = request.method == "DELETE" and request.target.startswith(_EXCHANGES)
        if (refusal := self._limiter.take(claims, stop=stop)) is not None:
            if refusal.policy == "key-requests":
                self._stats.limited_keys += 1
            else:
                self._stats.limited += 1
            log.info("limit reached", extra={"policy": refusal.policy, "request": claims.request_id})
            fields = self._limiter.fields(claims)
            problems.respond(responder, Problem.RATE_LIMITED, refusal.detail, exchange_id, fields, refusal)
            return _ANSWERED
        exchange = Exchange(
            request,
            responder,
            claims,
            forwarding.request_head(request, claims, exchange_id),
            exchange_id,
            bridges=self._bridges,
            stats=self._stats,
            limiter=self._limiter,
            settings=self._settings,
            done=self.exchanges.discard,
        )
        self.exchanges.add(exchange)
        exchange.begin()
        return exchange

    def _tunnel(self, request: Request, responder: Responder) -> RequestHandler:
        claims = self._verified(request, responder, BRIDGE)
        if claims is None:
            return _ANSWERED
        if request.upgrade != "websocket" or request.method != "GET":
            problems.respond(responder, Problem.BAD_REQUEST, "Expected a WebSocket upgrade.")
            return _ANSWERED
        if not self._leases.take(claims.subject, claims.until):
            problems.respond(responder, Problem.FORBIDDEN, "This bridge was revoked.")
            return _ANSWERED
        transport, rest = responder.hijack()
        self._tunnels.take_over(transport, request.raw_head + rest, claims.subject)
        return _ANSWERED

    def _manage(self, request: Request, responder: Responder, path: str) -> RequestHandler:
        if not self._is_manager(request):
            problems.respond(responder, Problem.UNAUTHENTICATED, "Only the manager may ask this.")
        elif request.method != "GET":
            problems.respond(responder, Problem.METHOD_NOT_ALLOWED, "Expected GET.")
        else:
            self._stats.asked = self._clock.monotonic()
            document = (
                {"status": "ok"} if path == "/healthz" else self._stats.to_json(self._tunnels.attached_bridges())
            )
            headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
            responder.respond(200, headers, json.dumps(document).encode())
        return _ANSWERED

    def _disconnect(self, request: Request, responder: Responder, path: str) -> RequestHandler:
        found = _DISCONNECT.fullmatch(path)
        if not self._is_manager(request):
            problems.respond(responder, Problem.UNAUTHENTICATED, "Only the manager may ask this.")
        elif found is None:
            problems.respond(responder, Problem.NOT_FOUND, "Expected /bridges/ID/disconnect.")
        elif request.method != "POST":
            problems.respond(responder, Problem.METHOD_NOT_ALLOWED, "Expected POST.")
        else:
            tunnels = self._leases.cut(found[1])
            log.info("bridge cut", extra={"bridge": found[1], "tunnels": tunnels})
            responder.respond(204, ((b"cache-control", b"no-store"),), b"")
        return _ANSWERED

    def _is_manager(self, request: Request) -> bool:
        return hmac.compare_digest(request.field(b"authorization") or b"", self._manager)

    def _verified(self, request: Request, responder: Responder, kind: str) -> Assertion | None:
        """Return the claims of the request's one assertion, or answer and return None."""
        given = [value for name, value in request.headers if name == ASSERTION]
        try:
            return self._claims(given, kind)
        except AssertionRefusedError as error:
            log.warning("assertion refused", extra={"cause": str(error), "kind": kind})
            problems.respond(responder, Problem.UNAUTHENTICATED, "This request was not authorised for this relay.")
            return None

    def _claims(self, given: list[bytes], kind: str) -> Assertion:
        if len(given) != 1:
            raise AssertionRefusedError(f"expected one assertion, got {len(given)}")
        claims = verify(
            given[0].decode("latin-1"),
            self._settings.key,
            instance=self._settings.instance,
            kind=kind,
            now=self._clock.wall(),
        )
        # A proxy is one user's for its whole life: the first assertion that holds says whose.
        if self._user is None:
            self._user = claims.user
        elif self._user != claims.user:
            raise AssertionRefusedError("for another user")
        return claims
