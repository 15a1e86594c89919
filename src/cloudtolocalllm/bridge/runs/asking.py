"""Asks an engine on the bridge's own behalf, by the same way as a request that came through the tunnel."""

import secrets
from collections.abc import Callable

from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.exchange import Desk, Exchange
from cloudtolocalllm.bridge.fields import framing
from cloudtolocalllm.bridge.guard import Route, RouteRefusedError, admit
from cloudtolocalllm.bridge.journal import Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.tunnel import RequestHead


def route_of(method: str, target: str, allow: tuple[str, ...]) -> Route:
    """Return where a request leads, judged by the same guard as those of the cloud.

    Raises:
        RefusalError: It is not served, or switched off at home.
    """
    try:
        route = admit(method, target, allow)
    except RouteRefusedError as error:
        raise RefusalError(Problem.ROUTE_REFUSED, str(error)) from None
    if not isinstance(route, Route):
        raise RefusalError(Problem.ROUTE_REFUSED, "Expected a route of an engine.")
    return route


def ask(
    desk: Desk, route: Route, content: bytes, port: Port, *, on_loading: Callable[[], None] | None = None
) -> Exchange:
    """Send a request to the engine that is to answer it.

    Args:
        desk: The engines, and what exchanges share.
        route: As `route_of` gave it.
        content: JSON.
        port: Where the answer goes; its methods may be called before this returns.
        on_loading: Called when the engine has to load the model first.
    """
    headers = ((b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()))
    head = RequestHead(route.method, route.path, headers)
    record = Record(secrets.token_urlsafe(16))
    exchange = Exchange(desk, Caller(session=True), route, head, framing(route.method, headers), port, record)
    exchange.on_loading = on_loading
    exchange.start()
    exchange.take(content)
    exchange.take_end()
    return exchange
