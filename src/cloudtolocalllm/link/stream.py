"""Streams as objects, and what their owners provide."""

from typing import TYPE_CHECKING, Protocol

from cloudtolocalllm.tunnel import Headers, RequestHead, ResetReason, ResponseHead, Session, StreamClosedError

if TYPE_CHECKING:
    from cloudtolocalllm.link.tunnel import Tunnel


class StreamHandler(Protocol):
    """What the owner of a stream provides. Methods must not raise and must not block."""

    def on_head(self, head: ResponseHead) -> None:
        """Role PROXY: a response head; informational ones (status < 200) come before the final one."""

    def on_data(self, data: bytes) -> None:
        """Payload; the owner calls `Stream.consumed(len(data))` once it has passed it on."""

    def on_end(self, trailers: Headers) -> None:
        """The peer's half is complete."""

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The stream is over without its end; nothing more is called."""

    def on_writable(self) -> None:
        """`Stream.window` was 0 and is not any more."""


class Acceptor(Protocol):
    """Role BRIDGE: makes the handler of each stream that the proxy opens."""

    def __call__(self, head: RequestHead, stream: "Stream") -> StreamHandler:
        """Take a new request."""
        ...


class Stream:
    """One request and its response."""

    __slots__ = ("_handler", "_our_half_done", "_peer_half_done", "_session", "_tunnel", "id")

    def __init__(self, tunnel: "Tunnel", session: Session, stream_id: int, handler: StreamHandler | None) -> None:
        self.id = stream_id
        self._tunnel = tunnel
        self._session = session
        self._handler = handler
        self._our_half_done = False
        self._peer_half_done = False

    @property
    def window(self) -> int:
        """Bytes that `send_data` takes now."""
        return self._session.window(self.id)

    def send_head(self, head: ResponseHead) -> None:
        """Role BRIDGE: send a response head."""
        try:
            self._session.send_head(self.id, head)
        except StreamClosedError:
            self._reset_is_coming()
        self._tunnel.touch()

    def send_data(self, data: bytes) -> None:
        """Send payload of at most `window` bytes. Messages of one turn of the loop are written together."""
        try:
            self._session.send_data(self.id, data)
        except StreamClosedError:
            self._reset_is_coming()
        self._tunnel.touch()

    def end(self, trailers: Headers = ()) -> None:
        """Complete our half."""
        try:
            self._session.end_stream(self.id, trailers)
        except StreamClosedError:
            self._reset_is_coming()
        self._our_half_done = True
        if self._peer_half_done:
            self._tunnel.forget(self.id)
        self._tunnel.touch()

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """End both halves at once; the handler is not called again."""
        if self._tunnel.forget(self.id):
            self._session.reset_stream(self.id, reason, detail)
            self._tunnel.touch()

    def consumed(self, size: int) -> None:
        """Grant the peer credit for bytes that were passed on."""
        if not self._peer_half_done and self._handler is not None:
            self._session.consumed(self.id, size)
            self._tunnel.touch()

    def _reset_is_coming(self) -> None:
        """Let a call have no effect when the peer reset the stream in the very message that is being handled.

        The session knows it before the handler, who is told next. Anything else is the caller's fault: re-raise.
        """
        if self._our_half_done or not self._tunnel.knows(self.id):
            raise
