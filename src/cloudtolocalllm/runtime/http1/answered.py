"""The handler of a request that needs none any more."""

from cloudtolocalllm.runtime.http1.messages import Headers


class Answered:
    """Handles the rest of a request that was answered at once."""

    __slots__ = ()

    def on_body(self, data: bytes) -> None:
        """Content that nobody needs."""

    def on_body_end(self, trailers: Headers) -> None:
        """Nothing to do."""

    def on_disconnect(self) -> None:
        """Nothing to do."""

    def on_writable(self, writable: bool) -> None:
        """Nothing to do."""
