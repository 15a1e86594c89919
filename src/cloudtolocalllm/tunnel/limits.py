"""The limits of the protocol, with their units and reasons."""

from dataclasses import dataclass

SUBPROTOCOL = "c2l-tunnel.v1"
MAX_PAYLOAD = 64 * 1024
"""Bytes of payload in one frame. Bounds how long one stream can hold the wire (5 ms at 100 Mbit/s)."""
SESSION_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session; both sides state theirs in HELLO and the smaller one holds."""

    window: int = 256 * 1024
    """Bytes of DATA payload a stream may have in flight each way before the receiver grants more."""
    max_streams: int = 1024
    """Streams open at once in a session."""
    max_head: int = 64 * 1024
    """Bytes of an encoded request or response head, or of trailers."""
    max_unacked_frames: int = 8192
    """Frames kept for replay. A sender at this bound sends nothing but control frames until an ACK comes."""
    ack_every_frames: int = 32
    ack_every_bytes: int = 32 * 1024
    ack_delay: float = 0.2
    """Seconds after which a received frame is acknowledged even when nothing else is sent."""
    resume_window: float = 60.0
    """Seconds a session outlives its WebSocket."""
    ping_interval: float = 5.0
    """Seconds between the bridge's pings; with ping_misses it makes a dead link known within 15 s."""
    ping_misses: int = 2
    handshake_timeout: float = 10.0
    """Seconds from a new WebSocket to the peer's HELLO."""
