"""What the audit log hears of proxies."""

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.audit.events import Reason as Why
from cloudtolocalllm.manager.policy import Reason
from cloudtolocalllm.manager.table import Entry

_REMOVED = {
    Reason.IDLE: Why.IDLE,
    Reason.SURPLUS: Why.SURPLUS,
    Reason.DUPLICATE: Why.SURPLUS,
    Reason.DRAIN: Why.DRAIN,
    Reason.REMOVED: Why.BY_USER,
}
_KILLED = {
    Reason.UNRESPONSIVE: Why.UNRESPONSIVE,
    Reason.GONE: Why.DIED,
    Reason.STRAY: Why.STRAY,
    Reason.START_TIMEOUT: Why.START_FAILED,
    Reason.START_FAILED: Why.START_FAILED,
    Reason.CLAIM_FAILED: Why.START_FAILED,
}


class Lifecycle:
    """Tells the audit log of each step in a proxy's life."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def made(self, entry: Entry) -> None:
        """It is ready; a spare has no user yet."""
        self._auditor.record(Event.PROXY_MADE, user=entry.user, about=entry.id)

    def assigned(self, entry: Entry) -> None:
        """A spare became a user's."""
        self._auditor.record(Event.PROXY_ASSIGNED, user=entry.user, about=entry.id)

    def adopted(self, entry: Entry) -> None:
        """It was an earlier manager's."""
        self._auditor.record(Event.PROXY_ADOPTED, user=entry.user, about=entry.id)

    def limited(self, entry: Entry, user: int, keys: int) -> None:
        """It refused requests since the last look, for the user's limits and for keys' own."""
        for reason, count in ((Why.LIMIT_USER, user), (Why.LIMIT_KEY, keys)):
            if count > 0:
                self._auditor.record(Event.LIMIT_HIT, user=entry.user, reason=reason, count=count)

    def ends(self, entry: Entry, reason: Reason) -> None:
        """It is being ended."""
        if reason in _REMOVED:
            self._auditor.record(Event.PROXY_REMOVED, user=entry.user, about=entry.id, reason=_REMOVED[reason])
        else:
            why = _KILLED.get(reason, Why.UNSPECIFIED)
            self._auditor.record(Event.PROXY_KILLED, user=entry.user, about=entry.id, reason=why)
