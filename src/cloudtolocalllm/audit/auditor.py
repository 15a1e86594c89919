"""What services call: `record`, which never waits, never raises, and never lets a flood of refusals fill the disk."""

import hashlib
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.record import Entry, line_of
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds over which frequent events are counted together."""
SINGLY = 20
"""Frequent events with the same reason that are written one by one in a window."""
DAY = 86_400


class Log(Protocol):
    """Takes finished lines (audit.log.AuditLog)."""

    def append(self, line: bytes) -> bool:
        """Take a line to be written soon; False when there are too many already."""
        ...


class Auditor:
    """Makes records of events. One a process, used from its event loop's thread."""

    def __init__(self, log_: Log | None, *, service: str, clock: Clock) -> None:
        """Make an auditor.

        Args:
            log_: Where to; None to record nothing (tests of other things, a service without a folder).
            service: Its name in the records.
            clock: Wall time of the records, monotonic time of the windows.
        """
        self._log = log_
        self._service = service
        self._clock = clock
        self._cloak = AddressCloak()
        self._floods: dict[tuple[Event, Reason | None], _Flood] = {}  # at most events x reasons: both are fixed
        self._lost = 0
        self._lost_since = 0.0
        self.recorded = 0
        """Records handed to the log."""

    def record(
        self,
        event: Event,
        *,
        user: str | None = None,
        reason: Reason | None = None,
        request_id: str | None = None,
        about: str | None = None,
        address: str | None = None,
        settings: Sequence[str] = (),
        digest: str | None = None,
        count: int = 1,
        target: str | None = None,
    ) -> None:
        """Record an event; it is on disk within seconds.

        Args:
            event: What happened.
            user: The user's pseudonym.
            reason: Why, for events that have reasons.
            request_id: The request's.
            about: Identifier of the bridge, key, pairing or proxy that it happened to.
            address: The client's IP address as text; only a hash under a key of the day is kept.
            settings: Names of settings, for SERVICE_STARTED and CONFIGURATION_CHANGED.
            digest: Keyed hash of their values.
            count: How many it stands for, counted elsewhere.
            target: Pseudonym of the user that it is done to, when that is not `user`.
        """
        if self._log is None:
            return
        now = self._clock.wall()
        source = None if address is None else self._cloak.cloaked(address, now)
        entry = Entry(event, now, user, reason, request_id, about, source, settings=settings, digest=digest)
        if target is not None:
            entry = replace(entry, target=target)
        if count > 1:
            entry = replace(entry, count=count, until=now)
        if not event.kind.frequent or self._admits(event, reason, now, count):
            self._write(entry)

    def flush(self) -> None:
        """Write the counts of windows that are over. Called now and then (every WINDOW seconds or so)."""
        self._flush(self._clock.monotonic())

    def close(self) -> None:
        """Write all counts that are left."""
        self._flush(float("inf"))

    # --- floods

    def _admits(self, event: Event, reason: Reason | None, now: float, count: int) -> bool:
        """Count a frequent event; False when it is one too many to be written by itself."""
        monotonic = self._clock.monotonic()
        flood = self._floods.get((event, reason))
        if flood is not None and monotonic >= flood.ends:
            self._settle(event, reason, flood)
            flood = None
        if flood is None:
            self._floods[event, reason] = flood = _Flood(monotonic + WINDOW, now, now)
        if flood.written < SINGLY:
            flood.written += 1
            return True
        if flood.held == 0:
            flood.first = now
        flood.held += count
        flood.last = now
        return False

    def _flush(self, monotonic: float) -> None:
        for (event, reason), flood in list(self._floods.items()):
            if monotonic >= flood.ends:
                self._settle(event, reason, flood)
                del self._floods[event, reason]
        self._tell_lost()

    def _settle(self, event: Event, reason: Reason | None, flood: "_Flood") -> None:
        if flood.held and self._log is not None:
            self._write(Entry(event, flood.first, reason=reason, count=flood.held, until=flood.last))

    # --- writing

    def _write(self, entry: Entry) -> None:
        self._tell_lost()
        self._append(entry)

    def _append(self, entry: Entry) -> bool:
        assert self._log is not None  # noqa: S101 - asked by every caller
        uid = secrets.token_hex(8)
        try:
            line = line_of(entry, uid=uid, service=self._service)
        except ValueError:
            # a fault of ours; the event is worth more than its reason
            log.exception("an audit event with a reason that it does not give", extra={"code": entry.event.kind.code})
            entry = Entry(entry.event, entry.time, entry.user, Reason.UNSPECIFIED, entry.request_id, entry.about)
            line = line_of(entry, uid=uid, service=self._service)
        if self._log.append(line):
            self.recorded += 1
            return True
        if self._lost == 0:
            self._lost_since = entry.time
            log.error("audit events are lost: they come faster than they are written")
        self._lost += entry.count
        return False

    def _tell_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            now = self._clock.wall()
            if not self._append(Entry(Event.AUDIT_GAP, self._lost_since, count=lost, until=now)):
                self._lost = lost


@dataclass(slots=True)
class _Flood:
    ends: float
    first: float
    last: float
    written: int = 0
    held: int = 0


class AddressCloak:
    """Turns addresses into names that mean something for one day and nothing afterwards.

    The key is random, only in memory and thrown away at midnight UTC: within a day, and this process, the same
    address has the same name; after it nobody can tell which address it was, not even by trying all of them.
    """

    def __init__(self) -> None:
        self._day = -1
        self._key = b""

    def cloaked(self, address: str, now: float) -> str:
        """Return the day's name of an address.

        Args:
            address: IPv4 or IPv6 as text; of IPv6 the first 64 bits count, which is one network. Anything else
                (the path of a Unix socket) is "local".
            now: Seconds since the epoch.
        """
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "local"
        if isinstance(parsed, ipaddress.IPv6Address):
            mapped = parsed.ipv4_mapped
            packed = parsed.packed[:8] if mapped is None else mapped.packed
        else:
            packed = parsed.packed
        if (day := int(now // DAY)) != self._day:
            self._day, self._key = day, secrets.token_bytes(32)
        return "ip-" + hmac.new(self._key, packed, hashlib.sha256).hexdigest()[:16]
