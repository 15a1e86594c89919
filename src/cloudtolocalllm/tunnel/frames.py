"""The frame codec: the header, and the payloads of fixed shape. Heads and trailers are in `heads`.

A frame is a header of 10 bytes and a payload; all integers are unsigned and big endian:

    type (1)  flags (1, zero)  stream id (4)  payload length (4)  payload

Types from 16 up belong to streams and are numbered, one by one in each direction; the others are control
frames of the connection (stream id 0) and are not.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from cloudtolocalllm.tunnel.errors import RemoteError, VersionError
from cloudtolocalllm.tunnel.events import GoAwayReason, ResetReason
from cloudtolocalllm.tunnel.limits import MAX_DETAIL, MAX_PAYLOAD, MAX_WINDOW, SESSION_ID_BYTES, VERSION

# Plain integers and not an IntEnum: they are compared for each frame, and an enum's member costs a look-up.
HELLO: Final = 1
ACK: Final = 2
PING: Final = 3
PONG: Final = 4
GOAWAY: Final = 5
OPEN: Final = 16
HEAD: Final = 17
DATA: Final = 18
END: Final = 19
RESET: Final = 20
CREDIT: Final = 21

KIND_NAMES: Final = {
    HELLO: "HELLO",
    ACK: "ACK",
    PING: "PING",
    PONG: "PONG",
    GOAWAY: "GOAWAY",
    OPEN: "OPEN",
    HEAD: "HEAD",
    DATA: "DATA",
    END: "END",
    RESET: "RESET",
    CREDIT: "CREDIT",
}
FIRST_NUMBERED: Final = OPEN
PING_BYTES: Final = 8

HEADER: Final = Struct(">BBII")
HEADER_BYTES: Final = HEADER.size

_HELLO: Final = Struct(f">H{SESSION_ID_BYTES}sQQQIII")
_VERSION: Final = Struct(">H")
_U64: Final = Struct(">Q")
_U32: Final = Struct(">I")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side on each connection."""

    version: int
    session_id: bytes
    epoch: int
    received: int
    """Sequence number of the next frame expected: how many numbered frames of this session came so far."""
    window: int
    max_streams: int
    origin: int = 0
    """The epoch at which the numbering in use began; 0 from a bridge that has never heard the proxy."""
    last_stream: int = 0
    """The highest stream id that the sender has received; 0 from a proxy."""


def frame(kind: int, stream_id: int, payload: bytes) -> bytes:
    """Return one encoded frame; the payload is at most MAX_PAYLOAD bytes long."""
    return HEADER.pack(kind, 0, stream_id, len(payload)) + payload


def encode_hello(hello: Hello) -> bytes:
    """Return a HELLO frame."""
    payload = _HELLO.pack(
        hello.version,
        hello.session_id,
        hello.epoch,
        hello.origin,
        hello.received,
        hello.window,
        hello.max_streams,
        hello.last_stream,
    )
    return frame(HELLO, 0, payload)


def decode_hello(payload: bytes) -> Hello:
    """Read a HELLO's payload.

    Raises:
        VersionError: It is of another version; nothing after the version was looked at.
        RemoteError: It is malformed.
    """
    if len(payload) < _VERSION.size:
        raise RemoteError(f"expected a HELLO of {_HELLO.size} bytes, got {len(payload)}")
    (version,) = _VERSION.unpack_from(payload)
    if version != VERSION:
        raise VersionError(f"expected protocol version {VERSION}, got {version}")
    if len(payload) != _HELLO.size:
        raise RemoteError(f"expected a HELLO of {_HELLO.size} bytes, got {len(payload)}")
    version, session_id, epoch, origin, received, window, max_streams, last_stream = _HELLO.unpack(payload)
    if not 1 <= window <= MAX_WINDOW:
        raise RemoteError(f"expected a window of 1 to {MAX_WINDOW} bytes in HELLO, got {window}")
    if max_streams < 1:
        raise RemoteError("expected max_streams of at least 1 in HELLO, got 0")
    if epoch < 1:
        raise RemoteError("expected an epoch of at least 1 in HELLO, got 0")
    return Hello(version, session_id, epoch, received, window, max_streams, origin, last_stream)


def peek_hello(message: bytes) -> Hello:
    """Read the HELLO at the start of a connection's first message, so that the acceptor can find the session.

    Raises:
        RemoteError: The message does not begin with a well-formed HELLO.
    """
    if len(message) < HEADER_BYTES:
        raise RemoteError(f"expected a frame header of {HEADER_BYTES} bytes, got {len(message)}")
    kind, flags, stream_id, length = HEADER.unpack_from(message)
    if kind != HELLO:
        raise RemoteError(f"expected HELLO as the first frame, got type {kind}")
    check_header(flags, length, len(message) - HEADER_BYTES)
    check_control(kind, stream_id)
    return decode_hello(message[HEADER_BYTES : HEADER_BYTES + length])


def check_header(flags: int, length: int, available: int) -> None:
    """Check what holds for the header of every frame.

    Args:
        flags: As received.
        length: Bytes of payload that the header states.
        available: Bytes that follow the header in the message.

    Raises:
        RemoteError: A flag is set, or the payload is too long or not all there.
    """
    if flags:
        raise RemoteError(f"expected no flags, got {flags}")
    if length > MAX_PAYLOAD:
        raise RemoteError(f"expected a payload of at most {MAX_PAYLOAD} bytes, got {length}")
    if length > available:
        raise RemoteError(f"expected whole frames in a message, got {available} of {length} payload bytes")


def check_control(kind: int, stream_id: int) -> None:
    """Check that a control frame has no stream.

    Raises:
        RemoteError: It has.
    """
    if stream_id:
        raise RemoteError(f"expected stream 0 for {KIND_NAMES[kind]}, got {stream_id}")


def encode_ack(received: int) -> bytes:
    """Return an ACK frame: the number of the next frame expected."""
    return HEADER.pack(ACK, 0, 0, _U64.size) + _U64.pack(received)


def decode_ack(payload: bytes) -> int:
    """Read an ACK's payload.

    Raises:
        RemoteError: It is not 8 bytes long.
    """
    return int(_U64.unpack(_sized(payload, ACK, _U64.size))[0])


def encode_ping(kind: int, number: int) -> bytes:
    """Return a PING or PONG frame with a number in its 8 bytes."""
    return frame(kind, 0, _U64.pack(number))


def decode_ping(payload: bytes, kind: int) -> int:
    """Read the 8 bytes of a PING or PONG as a number.

    Raises:
        RemoteError: It is not 8 bytes long.
    """
    return int(_U64.unpack(_sized(payload, kind, PING_BYTES))[0])


def encode_goaway(reason: GoAwayReason) -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, bytes((reason,)))


def decode_goaway(payload: bytes) -> GoAwayReason:
    """Read a GOAWAY's payload.

    Raises:
        RemoteError: It is malformed or its reason is not known.
    """
    value = _sized(payload, GOAWAY, 1)[0]
    try:
        return GoAwayReason(value)
    except ValueError:
        raise RemoteError(f"expected a GOAWAY reason of 1 to {max(GoAwayReason)}, got {value}") from None


def encode_credit(size: int) -> bytes:
    """Return a CREDIT's payload: bytes that the peer may send on top of what it had."""
    return _U32.pack(size)


def decode_credit(payload: bytes) -> int:
    """Read a CREDIT's payload.

    Raises:
        RemoteError: It is malformed, or 0.
    """
    size = int(_U32.unpack(_sized(payload, CREDIT, _U32.size))[0])
    if not size:
        raise RemoteError("expected a CREDIT of at least 1 byte, got 0")
    return size


def encode_reset(stream_id: int, reason: ResetReason, detail: str) -> bytes:
    """Return a RESET frame; what is not printable ASCII in `detail` becomes "?", what is too long is cut."""
    text = "".join(char if " " <= char <= "~" else "?" for char in detail[:MAX_DETAIL])
    return frame(RESET, stream_id, bytes((reason,)) + text.encode("ascii"))


def decode_reset(payload: bytes) -> tuple[ResetReason, str]:
    """Read a RESET's payload.

    Raises:
        RemoteError: It is malformed, or its reason is not known or never on the wire.
    """
    if not 1 <= len(payload) <= 1 + MAX_DETAIL:
        raise RemoteError(f"expected a RESET of 1 to {1 + MAX_DETAIL} bytes, got {len(payload)}")
    value = payload[0]
    if not ResetReason.CANCELLED <= value < ResetReason.SESSION_LOST:
        raise RemoteError(f"expected a RESET reason of 1 to {ResetReason.SESSION_LOST - 1}, got {value}")
    detail = payload[1:]
    if any(not 0x20 <= byte <= 0x7E for byte in detail):
        raise RemoteError("expected printable ASCII in the text of RESET, got something else")
    return ResetReason(value), detail.decode("ascii")


def _sized(payload: bytes, kind: int, size: int) -> bytes:
    if len(payload) != size:
        raise RemoteError(f"expected {size} bytes in {KIND_NAMES[kind]}, got {len(payload)}")
    return payload
