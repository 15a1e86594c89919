"""A session joined to whichever WebSocket carries it now, with streams as objects.

Everything here is called and calls back on the event loop's thread, without tasks or queues per token: a chunk
costs one pass through the session on each side.
"""

from typing import Protocol

from cloudtolocalllm.tunnel import Headers, RequestHead, ResetReason, ResponseHead


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

    id: int

    @property
    def window(self) -> int:
        """Bytes that `send_data` takes now."""
        raise NotImplementedError

    def send_head(self, head: ResponseHead) -> None:
        """Role BRIDGE: send a response head."""
        raise NotImplementedError

    def send_data(self, data: bytes) -> None:
        """Send payload of at most `window` bytes. Messages of one turn of the loop are written together."""
        raise NotImplementedError

    def end(self, trailers: Headers = ()) -> None:
        """Complete our half."""
        raise NotImplementedError

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """End both halves at once; the handler is not called again."""
        raise NotImplementedError

    def consumed(self, size: int) -> None:
        """Grant the peer credit for bytes that were passed on."""
        raise NotImplementedError


class Tunnel:
    """One session and its present WebSocket. Owned by TunnelServer or TunnelClient."""

    def open(self, head: RequestHead, handler: StreamHandler) -> Stream:
        """Role PROXY: open a stream. Allowed while detached, within the resume window.

        Raises:
            cloudtolocalllm.tunnel.LocalError: Too many streams, going away, or a head over the limit.
        """
        raise NotImplementedError

    @property
    def attached(self) -> bool:
        """Whether a live WebSocket carries the session now."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        raise NotImplementedError

    @property
    def open_streams(self) -> int:
        """Streams not yet finished."""
        raise NotImplementedError
