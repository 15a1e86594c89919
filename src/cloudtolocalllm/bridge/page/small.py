"""A request with little content, which is taken when it is whole."""

from collections.abc import Callable

from cloudtolocalllm.runtime.http1 import Headers

MAX_CONTENT = 4096
"""Bytes."""


class SmallRequest:
    """The handler of such a request."""

    def __init__(self, take: Callable[[bytes | None], None]) -> None:
        """Expect the content.

        Args:
            take: Answers; given None for content that is too large.
        """
        self._take = take
        self._content = b""
        self._done = False

    def on_body(self, data: bytes) -> None:
        """Content came."""
        if self._done:
            return
        self._content += data
        if len(self._content) > MAX_CONTENT:
            self._done = True
            self._take(None)

    def on_body_end(self, trailers: Headers) -> None:
        """The request is complete."""
        if not self._done:
            self._done = True
            self._take(self._content)

    def on_disconnect(self) -> None:
        """The browser went away."""
        self._done = True

    def on_writable(self, writable: bool) -> None:
        """Nothing is under way."""
