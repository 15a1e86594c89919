"""The two ends of an exchange: what the tunnel calls, and what the engine's connection calls."""

from typing import TYPE_CHECKING

from cloudtolocalllm.runtime.http1 import Body, Headers
from cloudtolocalllm.tunnel import ResetReason

if TYPE_CHECKING:
    from cloudtolocalllm.bridge.exchange import Exchange


class Inbound:
    """The request's stream, as an exchange sees it."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Content of the request."""
        self._exchange.take(data)

    def on_end(self, trailers: Headers) -> None:
        """The request is complete; its trailers mean nothing to an engine."""
        self._exchange.take_end()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The client stopped, or the tunnel was lost."""
        self._exchange.reset(reason)

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self._exchange.follower.pump():
            self._exchange.record.drained()


class Outbound:
    """The engine's response, as an exchange sees it."""

    __slots__ = ("_exchange", "on_body")

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        # No call in between for each token, but for a key that has tokens a day.
        self.on_body = exchange.grew if exchange.usage is None else exchange.grew_counted

    def on_informational(self, status: int, headers: Headers) -> None:
        """A 1xx response."""
        self._exchange.informed(status, headers)

    def on_head(self, status: int, headers: Headers, body: Body) -> None:
        """The response's head."""
        self._exchange.answered(status, headers)

    def on_end(self, trailers: Headers) -> None:
        """The response is complete."""
        self._exchange.finished(trailers)

    def on_error(self, error: Exception) -> None:
        """The response is malformed or was cut short."""
        self._exchange.failed(error)

    def on_writable(self, writable: bool) -> None:
        """The engine's connection is full, or not any more."""
        self._exchange.intake.writable(writable)
