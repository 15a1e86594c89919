"""The demo engine's process: one HTTP server, one token source."""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.demo import anthropic, ollama, openai, responses
from cloudtolocalllm.demo.answer import Engine, Stats
from cloudtolocalllm.demo.call import Call, Route
from cloudtolocalllm.demo.guard import host_allowed, origin_allowed
from cloudtolocalllm.demo.residence import Residence
from cloudtolocalllm.demo.settings import DemoSettings
from cloudtolocalllm.demo.source import ScriptedSource, TokenSource
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.http1 import Headers, HttpServer, Request, RequestHandler, Responder

log = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds that answers under way are given at the end."""


def _stats(call: Call) -> None:
    """`GET /demo/stats`: the only route that no real engine has."""
    residence = call.engine.residence
    loads = {"loads": residence.loads, "loads_aborted": residence.loads_aborted}
    call.respond_json(200, {**call.engine.stats.to_json(), **loads})


def _not_found(call: Call) -> None:
    call.respond_text(404, "404 page not found")


def _wrong_method(call: Call) -> None:
    call.respond_text(405, "405 method not allowed")


def _forbidden(call: Call) -> None:
    call.responder.respond(403, (), b"")


def _preflight(call: Call) -> None:
    allow = (
        (b"access-control-allow-methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
        (b"access-control-allow-headers", b"Authorization,Content-Type,User-Agent,Accept,X-Requested-With"),
    )
    call.responder.respond(204, call.extra + allow, b"")


_ROUTES = {
    **ollama.ROUTES,
    **openai.ROUTES,
    **responses.ROUTES,
    **anthropic.ROUTES,
    ("GET", "/demo/stats"): Route(_stats, ollama.error_shape),
}
_PATHS = frozenset(path for _, path in _ROUTES)
_NOT_FOUND, _WRONG_METHOD, _FORBIDDEN, _PREFLIGHT = (
    Route(run, ollama.error_shape) for run in (_not_found, _wrong_method, _forbidden, _preflight)
)


class DemoApp:
    """Chooses the route of each request; a `runtime.http1` application."""

    def __init__(self, settings: DemoSettings, source: TokenSource | None = None) -> None:
        """Make an engine.

        Args:
            settings: Its settings.
            source: Where its tokens come from; None for the script.
        """
        clock = SystemClock()
        self._pace = settings.pace
        self.engine = Engine(
            source=source or ScriptedSource(),
            residence=Residence(settings.models, clock),
            stats=Stats(),
            clock=clock,
            keep_alive=settings.keep_alive,
        )

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        """Take a request."""
        host = (request.field(b"host") or b"").decode("latin-1")
        raw_origin = request.field(b"origin")
        origin = None if raw_origin is None else raw_origin.decode("latin-1")
        extra: Headers = () if raw_origin is None else ((b"access-control-allow-origin", raw_origin),)
        if not host_allowed(host) or not origin_allowed(origin, host):
            route = _FORBIDDEN
        elif request.method == "OPTIONS" and raw_origin is not None:
            route = _PREFLIGHT
        else:
            missing = _WRONG_METHOD if request.path in _PATHS else _NOT_FOUND
            route = _ROUTES.get((request.method, request.path), missing)
        call = Call(self.engine, self._pace, request, responder, route)
        call.extra = extra
        return call


async def serve(
    settings: DemoSettings,
    stop: asyncio.Event,
    *,
    ready: Callable[[int], None] | None = None,
    source: TokenSource | None = None,
) -> None:
    """Serve until `stop` is set.

    Args:
        settings: Where to listen, and how to answer.
        stop: Ends it; answers under way get two seconds.
        ready: Called with the TCP port once it listens.
        source: Where the tokens come from; None for the script.

    Raises:
        OSError: The address cannot be listened on.
    """
    app = DemoApp(settings, source)
    server = HttpServer(app)
    port = await server.listen_tcp(settings.host, settings.port)
    log.info("listening", extra={"address": f"{settings.host}:{port}"})
    try:
        if ready is not None:
            ready(port)
        await stop.wait()
    finally:
        await server.close(GRACE)
        app.engine.residence.close()
