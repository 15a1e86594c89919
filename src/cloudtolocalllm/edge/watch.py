"""Who is told when the edge turns a client away: the audit log, where there is one."""

from typing import Protocol

from cloudtolocalllm.edge.clients import Client
from cloudtolocalllm.edge.routes import Route


class Watch(Protocol):
    """Is told of refusals. Called on the loop's thread: must not block, and bounds what it writes itself."""

    def on_limited(self, client: Client, policy: str, where: Route | None, request_id: bytes) -> None:
        """A client asked for too much.

        Called at its first refusal in a while, not at each.

        Args:
            client: Who.
            policy: Which limit: the name in the RateLimit fields, or "connections".
            where: The route; None for a connection.
            request_id: b"" for a connection.
        """

    def on_refused(self, client: Client, reason: str, where: Route, request_id: bytes) -> None:
        """A request was refused for what it says of where it comes from.

        Args:
            client: Who.
            reason: "host" or "origin".
            where: The route.
            request_id: As the access log has it.
        """


class NoWatch:
    """Tells nobody."""

    def on_limited(self, client: Client, policy: str, where: Route | None, request_id: bytes) -> None:
        """Do nothing."""

    def on_refused(self, client: Client, reason: str, where: Route, request_id: bytes) -> None:
        """Do nothing."""
