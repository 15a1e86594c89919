"""What a session tells its owner. Every event is valid once constructed."""

from dataclasses import dataclass
from enum import IntEnum

Headers = tuple[tuple[bytes, bytes], ...]
"""Field lines in order; names lower-case; values without surrounding white space (RFC 9110 §5)."""


class ResetReason(IntEnum):
    """Why a stream ended without its END. The number is the wire value."""

    CANCELLED = 1
    """The client stopped or went away: the engine's work must be stopped."""
    REFUSED = 2
    """Not started: too many streams or going away. Safe to try elsewhere."""
    ENGINE_UNREACHABLE = 3
    ENGINE_ERROR = 4
    """The engine broke off in the middle of its answer."""
    TOO_LARGE = 5
    TIMED_OUT = 6
    INTERNAL = 7
    SESSION_LOST = 8
    """Never on the wire: the session ended (resume window over, or the peer lost it)."""


class GoAwayReason(IntEnum):
    """Why a side opens or accepts no more streams, or refuses a connection. The number is the wire value."""

    SHUTDOWN = 1
    IDLE = 2
    PROTOCOL_ERROR = 3
    EPOCH_FENCED = 4
    VERSION = 5
    REVOKED = 6
    OVERLOADED = 7
    ENDED = 8
    """The sender has ended the session; no event tells this but SessionEnded."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head as it crosses the tunnel: no hop-by-hop fields (RFC 9110 §7.6.1)."""

    method: str
    target: str
    """Origin form (RFC 9112 §3.2.1), as the client sent it, ASCII."""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head; a status below 200 is informational and another head follows."""

    status: int
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """HELLO was exchanged on a new connection; the session's frames flow again."""

    resumed: bool
    """Whether earlier streams of this session go on (False at the first connection and after a loss)."""
    epoch: int


@dataclass(frozen=True, slots=True)
class Detached:
    """The connection is gone; streams wait for the next one within the resume window."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer opened a stream (role BRIDGE only)."""

    stream_id: int
    head: RequestHead


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response head came (role PROXY only); informational ones come before the final one."""

    stream_id: int
    head: ResponseHead


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Payload came. The owner calls Session.consumed() once it has passed these bytes on."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EndReceived:
    """The peer's half of the stream is complete."""

    stream_id: int
    trailers: Headers = ()


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream is over without its END: by the peer, or because the session was lost."""

    stream_id: int
    reason: ResetReason
    detail: str = ""
    """For logs at this side; at most 200 characters of printable ASCII."""


@dataclass(frozen=True, slots=True)
class Writable:
    """A stream whose window was used up can take data again."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer will open (or accept) no more streams; those that run go on."""

    reason: GoAwayReason


@dataclass(frozen=True, slots=True)
class ConnectionDead:
    """Two pings went unanswered, or HELLO did not come: the owner must close the WebSocket and detach()."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session can no longer be resumed; every open stream was reset with SESSION_LOST before this."""

    detail: str


Event = (
    Attached
    | Detached
    | RequestReceived
    | ResponseReceived
    | DataReceived
    | EndReceived
    | StreamReset
    | Writable
    | GoAwayReceived
    | ConnectionDead
    | SessionEnded
)
