"""The way of an answer out: to a browser on this computer, at the pace at which it reads."""

from collections.abc import Callable

from cloudtolocalllm.runtime.http1 import Headers, Responder
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY
from cloudtolocalllm.runtime.page_fields import to_client
from cloudtolocalllm.tunnel import ResetReason, ResponseHead

MAX_WRITE = 64 * 1024
"""Bytes that are written in one piece."""
MAX_HELD = 256 * 1024
"""Bytes of content of a request that wait for whoever takes them; beyond, the connection is not read."""


class PagePort:
    """One answer; satisfies `bridge.port.Port`. Its owner calls `took`, `set_writable` and `close`."""

    __slots__ = ("_headed", "_held", "_on_over", "_paused", "_responder", "_writable", "over")

    def __init__(self, responder: Responder, on_over: Callable[[], None]) -> None:
        """Begin.

        Args:
            responder: Of the request.
            on_over: Called when nothing more will be sent.
        """
        self._responder = responder
        self._on_over = on_over
        self._writable = True
        self._headed = False
        self._paused = False
        self._held = 0
        self.over = False

    @property
    def window(self) -> int:
        """Bytes that `send_data` takes now."""
        return MAX_WRITE if self._writable and not self.over else 0

    def send_head(self, head: ResponseHead) -> None:
        """Take a response head."""
        if self.over or self._headed:
            return
        headers = to_client(head.headers, data=True)
        if head.status < 200:
            self._responder.inform(head.status, headers)
            return
        self._headed = True
        self._responder.start(head.status, headers, NO_BODY if head.status in (204, 304) else CHUNKED)

    def send_data(self, data: bytes) -> None:
        """Take content of at most `window` bytes."""
        if not self.over:
            self._responder.write(data)

    def end(self, trailers: Headers = ()) -> None:
        """The answer is complete."""
        if self.over:
            return
        if not self._headed:
            self.reset(ResetReason.INTERNAL)
            return
        self.close()
        self._responder.end(trailers)

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """The answer broke off: the browser sees that it is not whole."""
        if not self.over:
            self.close()
            self._responder.abort()

    def consumed(self, size: int) -> None:
        """Content of the request was passed on."""
        self._held -= size
        if self._paused and self._held <= MAX_HELD // 2:
            self._paused = False
            self._responder.resume_body()

    # --- for the owner --------------------------------------------------------------------------------------------

    def took(self, size: int) -> None:
        """Take note of content that came."""
        self._held += size
        if not self._paused and self._held > MAX_HELD:
            self._paused = True
            self._responder.pause_body()

    def set_writable(self, *, writable: bool) -> None:
        """Take note that the connection filled or emptied."""
        self._writable = writable

    def close(self) -> None:
        """Send nothing any more."""
        if not self.over:
            self.over = True
            self._on_over()
