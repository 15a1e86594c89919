"""The limits of the protocol, with their units and reasons."""

from dataclasses import dataclass

SUBPROTOCOL = "c2l-tunnel.v1"
VERSION = 1
"""The version in HELLO; another one is refused with GOAWAY(VERSION)."""
MAX_PAYLOAD = 64 * 1024
"""Bytes of payload in one frame. Bounds how long one stream can hold the wire (5 ms at 100 Mbit/s)."""
SESSION_ID_BYTES = 16
QUANTUM = 16 * 1024
"""Bytes a stream may send in its turn while others wait (deficit round robin, Shreedhar and Varghese 1995)."""
MAX_INFORMATIONAL = 16
"""Informational heads before the final one. Real servers send one or two (103, then perhaps 100)."""
MAX_DETAIL = 200
"""Bytes of the text in a RESET."""
MIN_REPLAY_BYTES = 1024 * 1024
"""A sender keeps up to window x max_streams bytes for replay, or this where that is less: an honest peer
acknowledges every 32 KiB or sooner, so with less the sender would wait for it with small windows."""
MAX_WINDOW = 2**31 - 1
"""Bytes; the largest window that HELLO may state, as in HTTP/2 (RFC 9113 §6.9.1)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session; both sides state window and max_streams in HELLO and the smaller ones hold."""

    window: int = 256 * 1024
    """Bytes of DATA payload a stream may have in flight each way before the receiver grants more."""
    max_streams: int = 1024
    """Streams open at once in a session."""
    max_head: int = 64 * 1024
    """Bytes of an encoded request or response head, or of trailers; at most MAX_PAYLOAD."""
    max_unacked_frames: int = 8192
    """Frames kept for replay. A sender at this bound sends nothing but control frames until an ACK comes."""
    ack_every_frames: int = 32
    ack_every_bytes: int = 32 * 1024
    ack_delay: float = 2.0
    """Seconds after which a received frame is acknowledged even when nothing else is sent. An ACK of its own wakes
    every hop once more: at 0.2 s that was one for every two tokens of a stream of ten a second. What a longer delay
    costs is memory for replay, which the window and the counts above bound anyway."""
    resume_window: float = 60.0
    """Seconds a session outlives its WebSocket."""
    ping_interval: float = 5.0
    """Seconds between the bridge's pings; with ping_misses it makes a dead link known within 15 s."""
    ping_misses: int = 2
    handshake_timeout: float = 10.0
    """Seconds from a new WebSocket to the peer's HELLO."""

    def __post_init__(self) -> None:
        """Refuse limits under which the protocol could not move.

        Raises:
            ValueError: A limit is out of its range.
        """
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"expected a window of 1 to {MAX_WINDOW} bytes, got {self.window}")
        if not 1 <= self.max_head <= MAX_PAYLOAD:
            raise ValueError(f"expected max_head of 1 to {MAX_PAYLOAD} bytes, got {self.max_head}")
        if min(self.max_streams, self.max_unacked_frames, self.ack_every_frames, self.ack_every_bytes) < 1:
            raise ValueError("expected max_streams, max_unacked_frames and ack_every_* of at least 1")

    @property
    def silence(self) -> float:
        """Seconds without any frame after which a connection is dead."""
        return self.ping_interval * (self.ping_misses + 1)


DEFAULT_LIMITS = Limits()
"""One for all who set none: forked processes share it."""
