"""Where a request goes: pure, by host and path."""

import re
from collections.abc import Collection
from enum import Enum

from cloudtolocalllm.contracts.authorize import DATA_PREFIXES, TUNNEL_TARGET

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ANY = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - not listened on here, but excluded
"""Addresses to listen on; as the name of a host they reach this machine too, and nobody of good intent uses them."""

_TRICK = re.compile(
    r"%(?:2e|2f|5c|[01][0-9a-f]|7f|(?![0-9a-f]{2}))|[\\\x00-\x20\x7f]|//|\.\.|(?:^|/)\.(?:/|$)", re.IGNORECASE
)
"""Encoded dots, slashes and control characters, malformed escapes, backslashes, empty segments and dot segments: what
two servers could read in two ways."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.IGNORECASE | re.ASCII)


class Route(Enum):
    """What serves a request."""

    API = "api"
    API_WEBSOCKET = "api-websocket"
    DATA = "data"
    TUNNEL = "tunnel"
    HEALTH = "health"
    STATIC = "static"
    NOTHING = "nothing"
    """Not reachable from outside."""


def route(path: str) -> Route:
    """Return what serves a path (without query)."""
    if path in ("/ws/bridge", "/ws/events"):
        return Route.API_WEBSOCKET
    if path == TUNNEL_TARGET:
        return Route.TUNNEL
    if path == "/healthz":
        return Route.HEALTH
    if path == "/readyz" or path.startswith("/api/"):
        return Route.API
    if path.startswith(DATA_PREFIXES) or path == "/ollama":
        return Route.DATA
    if path.startswith(("/internal/", "/ws/")) or path in ("/internal", "/api", "/ws"):
        return Route.NOTHING
    return Route.STATIC


def is_plain(path: str) -> bool:
    """Tell whether a path can be read in one way only."""
    return _TRICK.search(path) is None


def host_name(host: bytes) -> str | None:
    """Return the name in a Host field in lower case, without the port; None when it is malformed."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return found[1].lower() if found and int(found[2] or 0) <= 65535 else None


def hosts(domain: str, listen_host: str, further: Collection[str]) -> frozenset[str]:
    """Return the host names that requests may name; any other is refused, against DNS rebinding."""
    more = {name.lower() for name in further}
    if domain:
        return frozenset({domain.lower(), f"app.{domain.lower()}", *more})
    own = {f"[{listen_host}]" if ":" in listen_host else listen_host.lower()} - _ANY
    return frozenset({*LOCAL_HOSTS, *own, *more})
