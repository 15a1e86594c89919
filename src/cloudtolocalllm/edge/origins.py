"""Which pages may call: our own, and on the data routes those that the owner named (CORS, WHATWG Fetch §3.2).

Requests without an Origin come from programs, or are a browser's own page loads; they are not judged here.
"""

import re
from collections.abc import Collection
from enum import Enum

from cloudtolocalllm.runtime.http1 import Headers, Request

EXPOSED = b"c2l-exchange-id, c2l-readable, retry-after, ratelimit, ratelimit-policy, x-request-id"
METHODS = b"GET, HEAD, POST, DELETE"
MAX_AGE = b"600"
"""Seconds that a browser may keep a preflight's answer; Chromium keeps none for longer than two hours."""
VARY: Headers = ((b"vary", b"Origin"),)

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_TOKENS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}){0,63}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Standing(Enum):
    """Whose page made a request."""

    NONE = "none"
    """No page's, as far as can be told."""
    OURS = "ours"
    ALLOWED = "allowed"
    """Of an origin that the owner named."""
    FOREIGN = "foreign"


class Origins:
    """Judges the Origin field."""

    def __init__(self, allowed: Collection[str]) -> None:
        """Allow these origins on the data routes, and our own everywhere."""
        self._allowed = frozenset(origin.encode() for origin in allowed)

    @property
    def any_allowed(self) -> bool:
        """Whether answers of the data routes depend on the Origin."""
        return bool(self._allowed)

    def judge(self, request: Request, scheme: bytes | None) -> Standing:
        """Return whose page made a request.

        Args:
            request: It names a host that is ours.
            scheme: What the browser speaks, None when that is not known: a proxy that we do not know of may end TLS
                in front of us. The API then still compares what a cookie authenticates with its public address.
        """
        sent = [value for name, value in request.headers if name == b"origin"]
        if not sent:
            return Standing.NONE
        if len(sent) > 1:
            return Standing.FOREIGN
        if _is_ours(sent[0], request.field(b"host") or b"", scheme):
            return Standing.OURS
        return Standing.ALLOWED if sent[0] in self._allowed else Standing.FOREIGN


def _is_ours(origin: bytes, host: bytes, scheme: bytes | None) -> bool:
    found = _ORIGIN.fullmatch(origin.decode("latin-1"))
    if found is None or found[1] not in _DEFAULT_PORTS or (scheme is not None and found[1].encode() != scheme):
        return False
    default = _DEFAULT_PORTS[found[1]]
    name, _, port = host.decode("latin-1").lower().rpartition(":")
    if not name or port.endswith("]"):  # no port; an IPv6 address ends with its bracket
        name, port = host.decode("latin-1").lower(), default
    return (found[2], found[3] or default) == (name, port)


def parse_origins(text: str) -> tuple[str, ...]:
    """Read origins, separated by commas, exactly as browsers send them.

    Raises:
        ValueError: One is none, or a browser would write it in another way.
    """
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        found = _ORIGIN.fullmatch(origin)
        if found is None or found[3] == _DEFAULT_PORTS.get(found[1], "") or int(found[3] or 0) > 65535:
            raise ValueError(
                "expected exact origins as https://chat.example or http://localhost:3000, separated by commas: "
                "lower case, no path, no wildcard, no default port"
            )
    return origins


def answer_fields(origin: bytes) -> Headers:
    """Return the fields of every answer to a page of an allowed origin; credentials are never allowed."""
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        *VARY,
    )


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks first whether it may send a request."""
    return request.method == "OPTIONS" and request.field(b"access-control-request-method") is not None


def preflight_fields(request: Request) -> Headers:
    """Return the fields of the answer to a preflight, beside `answer_fields`.

    The field names that are asked for are allowed as they are: clients send many of their own, and those that are
    ours are dropped from every request anyway.
    """
    asked = request.field(b"access-control-request-headers") or b""
    names = ((b"access-control-allow-headers", asked),) if _TOKENS.fullmatch(asked) else ()
    return (
        (b"access-control-allow-methods", METHODS),
        *names,
        (b"access-control-max-age", MAX_AGE),
        (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
    )
