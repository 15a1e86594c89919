"""Heads of HTTP/1.1 messages as plain values."""

from dataclasses import dataclass
from enum import Enum

Headers = tuple[tuple[bytes, bytes], ...]
"""Field lines in order; names lower-case."""

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Fields that concern one connection only (RFC 9110 §7.6.1); those that Connection names are added."""


class BodyKind(Enum):
    """How a message's body is delimited (RFC 9112 §6)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"


@dataclass(frozen=True, slots=True)
class Body:
    """A body's delimitation; `length` in bytes for LENGTH, else 0."""

    kind: BodyKind
    length: int = 0


NO_BODY = Body(BodyKind.NONE)
CHUNKED = Body(BodyKind.CHUNKED)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one connection."""

    max_head: int = 32 * 1024
    """Bytes of a request or response head; a longer one gives 431 (414 when the target alone is too long)."""
    max_target: int = 8 * 1024
    max_fields: int = 100
    head_timeout: float = 10.0
    """Seconds from a request's first byte to the end of its head (slowloris)."""
    idle_timeout: float = 75.0
    """Seconds a kept-alive connection may wait for its next request."""
    write_high_water: int = 64 * 1024
    """Bytes in the transport's buffer above which `on_writable(False)` is called."""
    body_timeout: float = 60.0
    """Seconds without any byte of a request's content, while it is being read, after which it is given up (408)."""
    write_timeout: float = 120.0
    """Seconds a client may leave a full buffer untouched before its connection is aborted."""


DEFAULT_LIMITS = HttpLimits()
"""One for all who set none: forked processes share it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request head, valid by RFC 9112: one Host, one framing, no obs-fold, no bare CR or LF."""

    method: str
    target: str
    """As received, in origin form ("/path?query"); absolute form is reduced to it after the Host check."""
    headers: Headers
    body: Body
    http_version: str
    """"1.1" or "1.0"."""
    keep_alive: bool
    upgrade: str | None
    """The Upgrade field's value in lower case when Connection lists it, else None."""
    expect_continue: bool
    raw_head: bytes
    """The head as received, with its empty line; for handing an upgrade over."""

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a field (name in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole small response, as `fetch` returns it."""

    status: int
    headers: Headers
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a field (name in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def end_to_end(headers: Headers) -> Headers:
    """Return the fields that may be forwarded: without hop-by-hop fields and those that Connection names.

    Content-Length is kept: it describes the content, and the next hop frames by it.
    """
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return tuple((name, value) for name, value in headers if name not in HOP_BY_HOP and name not in named)
