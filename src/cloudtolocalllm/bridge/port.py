"""Where an exchange's answer goes: a stream of the tunnel, or the bridge itself when it asks for a run."""

from typing import Protocol

from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import ResetReason, ResponseHead


class Port(Protocol):
    """The bridge's side of one request; `link.Stream` is one."""

    @property
    def window(self) -> int:
        """Bytes that `send_data` takes now."""
        ...

    def send_head(self, head: ResponseHead) -> None:
        """Take a response head."""

    def send_data(self, data: bytes) -> None:
        """Take content of at most `window` bytes."""

    def end(self, trailers: Headers = ()) -> None:
        """The answer is complete."""

    def reset(self, reason: ResetReason, detail: str = "") -> None:
        """The answer broke off."""

    def consumed(self, size: int) -> None:
        """Content of the request was passed on."""
