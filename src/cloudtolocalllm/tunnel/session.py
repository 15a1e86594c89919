"""The automaton of one session: messages in, events out, messages to send.

A session outlives its WebSocket. The bridge dials, the proxy accepts; the proxy opens streams, the bridge answers.
"""

from enum import Enum

from cloudtolocalllm.tunnel.events import (
    Event,
    GoAwayReason,
    Headers,
    RequestHead,
    ResetReason,
    ResponseHead,
)
from cloudtolocalllm.tunnel.limits import Limits


class Role(Enum):
    """Which side of the tunnel a session object is."""

    PROXY = "proxy"
    BRIDGE = "bridge"


class Session:
    """One side of a tunnel session.

    After every call below, take `events_received()` and then `data_to_send()` until it returns None.
    """

    def __init__(self, role: Role, session_id: bytes, *, limits: Limits | None = None) -> None:
        """Make a session that has no connection yet.

        Args:
            role: Which side this is.
            session_id: 16 random bytes, chosen by the bridge; the proxy takes them from the bridge's HELLO.
            limits: None for the defaults.
        """
        raise NotImplementedError

    # --- the connection -------------------------------------------------------------------------------------

    def attach(self, now: float) -> None:
        """Take a new WebSocket into use. Role BRIDGE: raises the epoch by one and sends HELLO.

        Role PROXY: the next message must be the peer's HELLO (see `peek_hello`); it is answered with HELLO.
        A connection that is still attached is replaced.

        Args:
            now: Monotonic seconds.
        """
        raise NotImplementedError

    def detach(self, now: float) -> None:
        """The WebSocket is gone. Event: Detached. The resume window begins."""
        raise NotImplementedError

    def receive_data(self, message: bytes, now: float) -> None:
        """Take one binary WebSocket message: one or more whole frames.

        Raises:
            RemoteError: The peer broke the protocol. `data_to_send()` then holds a GOAWAY to send before the
                WebSocket is closed with 1002; the session has ended.
        """
        raise NotImplementedError

    def events_received(self) -> list[Event]:
        """Return the events since the last call, in order."""
        raise NotImplementedError

    def data_to_send(self, max_bytes: int = 256 * 1024) -> bytes | None:
        """Return the next binary message, or None when there is nothing to send now.

        Control frames come first; then DATA of the streams in turn (deficit round robin), so that no stream
        waits for another's backlog.

        Args:
            max_bytes: A message grows to about this size; one frame always fits.
        """
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which `tick()` must be called next, or None."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Do what time asks for: ping, declare the connection dead, acknowledge, end the session."""
        raise NotImplementedError

    @property
    def attached(self) -> bool:
        """Whether HELLO was exchanged on a live connection."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        raise NotImplementedError

    @property
    def open_streams(self) -> int:
        """Streams that are not finished in both directions."""
        raise NotImplementedError

    def go_away(self, reason: GoAwayReason) -> None:
        """Tell the peer that no more streams are opened (or accepted); those that run go on."""
        raise NotImplementedError

    def end(self, detail: str) -> None:
        """End the session now: open streams are reset locally with SESSION_LOST. Event: SessionEnded."""
        raise NotImplementedError

    # --- streams --------------------------------------------------------------------------------------------

    def open_stream(self, head: RequestHead) -> int:
        """Open a stream (role PROXY only) and return its id; ids rise and are never reused.

        Allowed while detached: the frame waits for the next connection.

        Raises:
            LocalError: Too many streams, the peer is going away, or the head is over the limit or malformed.
        """
        raise NotImplementedError

    def send_head(self, stream_id: int, head: ResponseHead) -> None:
        """Send a response head (role BRIDGE only); informational heads first, then exactly one final head."""
        raise NotImplementedError

    def window(self, stream_id: int) -> int:
        """Return how many bytes `send_data` takes for this stream now; 0 for one that has ended."""
        raise NotImplementedError

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Queue payload; it is cut into frames of at most MAX_PAYLOAD.

        Raises:
            CreditExceededError: `data` is longer than `window()`. When the window reaches 0, a `Writable` event
                follows as soon as it opens again.
            StreamClosedError: The stream has ended.
        """
        raise NotImplementedError

    def end_stream(self, stream_id: int, trailers: Headers = ()) -> None:
        """Complete our half of the stream, after the data queued before."""
        raise NotImplementedError

    def reset_stream(self, stream_id: int, reason: ResetReason, detail: str = "") -> None:
        """End the stream at once in both directions; queued data is dropped. No effect on a finished stream."""
        raise NotImplementedError

    def consumed(self, stream_id: int, size: int) -> None:
        """Tell that `size` received bytes were passed on, so that credit can be granted (in large steps)."""
        raise NotImplementedError
