"""The dialling side: keeps one session alive over one WebSocket after another."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from cloudtolocalllm.link.tunnel import Acceptor, Tunnel
from cloudtolocalllm.tunnel import Limits


@dataclass(frozen=True, slots=True)
class DialTarget:
    """Where and as whom to dial."""

    url: str
    """ws:// or wss:// URL."""
    headers: Mapping[str, str]
    """Extra fields of the upgrade request, such as Authorization."""


class TunnelClient:
    """One session, dialled and dialled again with jittered backoff until it is closed."""

    def __init__(
        self,
        target: Callable[[], Awaitable[DialTarget]],
        acceptor: Acceptor,
        *,
        limits: Limits | None = None,
    ) -> None:
        """Make a client that is not connected.

        Args:
            target: Asked before each attempt, so that credentials can be renewed.
            acceptor: Called for each stream that the proxy opens.
            limits: None for the defaults.
        """
        raise NotImplementedError

    @property
    def tunnel(self) -> Tunnel:
        """The session in use; a new one after a session was lost."""
        raise NotImplementedError

    async def run(self) -> None:
        """Connect and reconnect until cancelled or the proxy sends GOAWAY(IDLE | SHUTDOWN | REVOKED) and streams ended.

        Raises:
            RefusedError: The server refuses us in a way that dialling again cannot mend (401, 403).
        """
        raise NotImplementedError
