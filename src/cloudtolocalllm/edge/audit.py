"""What the audit log hears of clients that the edge turns away."""

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.edge.clients import Client
from cloudtolocalllm.edge.routes import Route


class AuditWatch:
    """A `Watch` that records; the Auditor bounds what is written."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def on_limited(self, client: Client, policy: str, where: Route | None, request_id: bytes) -> None:
        """See `Watch.on_limited`."""
        reason = Reason.LIMIT_CONNECTIONS if policy == "connections" else Reason.LIMIT_ADDRESS
        self._auditor.record(
            Event.LIMIT_HIT,
            reason=reason,
            address=client.address,
            request_id=request_id.decode("ascii", "replace") or None,
        )

    def on_refused(self, client: Client, reason: str, where: Route, request_id: bytes) -> None:
        """See `Watch.on_refused`."""
        id_ = request_id.decode("ascii", "replace")
        if reason == "host":
            self._auditor.record(Event.HOST_REFUSED, address=client.address, request_id=id_)
        else:
            self._auditor.record(Event.FORBIDDEN, reason=Reason.CROSS_SITE, address=client.address, request_id=id_)
