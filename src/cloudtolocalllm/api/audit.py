"""The API's way to the audit log; `Event` and `Reason` come along, so that routes need one import."""

from cloudtolocalllm.api.browser import Fields
from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.refusals import reason_of

__all__ = ["Auditor", "Event", "Reason", "reason_of", "request_id", "short"]

REFERENCE_LENGTH = 26
SHORT = 12


def request_id(fields: Fields) -> str | None:
    """Return the id that the edge gave to a request."""
    return fields.get(b"x-request-id", b"").decode("latin-1") or None


def short(reference: str) -> str | None:
    """Return the beginning of a pairing's id, enough to know it again and not to use it; None for a short code."""
    return reference[:SHORT] if len(reference) == REFERENCE_LENGTH else None
