"""The accepting side: WebSockets come in, sessions are found or made by the session id in HELLO."""

import asyncio
from collections.abc import Callable

from cloudtolocalllm.link.tunnel import Tunnel
from cloudtolocalllm.tunnel import GoAwayReason, Limits


class TunnelServer:
    """Sessions by bridge, each resumable within its window; a session belongs to the bridge that made it."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        on_tunnel: Callable[[str, Tunnel], None] | None = None,
        on_tunnel_ended: Callable[[str, Tunnel], None] | None = None,
    ) -> None:
        """Make a server with no session.

        Args:
            limits: None for the defaults.
            on_tunnel: Called with the bridge's id when a session is first attached.
            on_tunnel_ended: Called when a session is over for good.
        """
        raise NotImplementedError

    def take_over(self, transport: asyncio.Transport, request: bytes, bridge_id: str) -> None:
        """Make a WebSocket of an HTTP connection whose upgrade request was already read and authorised.

        Args:
            transport: The connection; its protocol is replaced.
            request: The bytes of the request head as received, up to and including the empty line, and any
                bytes that came after it.
            bridge_id: Who the authenticated peer is.
        """
        raise NotImplementedError

    def tunnels(self, bridge_id: str | None = None) -> list[Tunnel]:
        """Return the sessions that are not over, attached or resumable, of one bridge or of all."""
        raise NotImplementedError

    async def close(self, reason: GoAwayReason, grace: float) -> None:
        """Send GOAWAY, wait up to `grace` seconds for open streams, then end every session."""
        raise NotImplementedError
