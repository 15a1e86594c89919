"""What the manager knows of each instance now."""

import asyncio
import math
from collections import deque
from collections.abc import Iterator

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import Instance, InstanceState
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.manager.policy import Observed, Phase

_STATES = {
    Phase.STARTING: InstanceState.STARTING,
    Phase.READY: InstanceState.READY,
    Phase.STOPPING: InstanceState.STOPPING,
    Phase.GONE: InstanceState.STOPPING,
    Phase.STRAY: InstanceState.STOPPING,
}


class Entry:
    """One instance. The reconciler alone writes to it."""

    __slots__ = (
        "active_at",
        "binding",
        "bridges",
        "confirming",
        "created",
        "endpoint",
        "failed_checks",
        "id",
        "in_flight",
        "key",
        "limited",
        "measured_at",
        "phase",
        "removed",
        "since",
        "task",
        "user",
    )

    def __init__(self, spec: InstanceSpec, phase: Phase, now: float) -> None:
        self.id = spec.id
        self.user = spec.user
        self.key = spec.key
        self.created = spec.created
        self.phase = phase
        self.since = now
        self.active_at = now
        self.endpoint: Endpoint | None = None
        self.in_flight = 0
        self.bridges = 0
        self.measured_at: float | None = None
        self.failed_checks = 0
        self.limited: tuple[int, int] | None = (0, 0)
        """Requests that it had refused, for its user's and for keys' limits; None when that is not known yet."""
        self.binding = False
        """Whether its user is being recorded: it may not be handed out before that is done."""
        self.confirming = False
        """Whether it is being asked a last time before it is stopped as idle."""
        self.task: asyncio.Task[None] | None = None
        """The start that is under way."""
        self.removed = asyncio.Event()
        """Set when nothing of it is left."""

    def enter(self, phase: Phase, now: float) -> None:
        """Change the phase."""
        self.phase = phase
        self.since = now

    def observed(self) -> Observed:
        """Return it as the policy sees it."""
        return Observed(
            id=self.id,
            user=self.user,
            phase=self.phase,
            since=self.since,
            active_at=self.active_at,
            measured_at=None if self.confirming or self.binding else self.measured_at,
            in_flight=self.in_flight,
            failed_checks=self.failed_checks,
        )

    @property
    def state(self) -> InstanceState:
        """The phase as others see it."""
        return _STATES[self.phase]

    def instance(self) -> Instance | None:
        """Return it as others see it; None before it has an endpoint."""
        if self.endpoint is None:
            return None
        return Instance(
            id=self.id,
            user=self.user,
            endpoint=self.endpoint,
            key=self.key,
            state=self.state,
            created=self.created,
        )


class Table:
    """All instances, by id and by user."""

    def __init__(self) -> None:
        self._by_id: dict[str, Entry] = {}
        self._by_user: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._by_id.values()))

    def __contains__(self, instance: str) -> bool:
        return instance in self._by_id

    def add(self, entry: Entry) -> None:
        """Add an instance with a new id."""
        self._by_id[entry.id] = entry
        if entry.user is not None:
            self._by_user.setdefault(entry.user, entry)

    def get(self, instance: str) -> Entry | None:
        """Return the instance with this id."""
        return self._by_id.get(instance)

    def of_user(self, user: str) -> Entry | None:
        """Return the user's live instance, starting or ready."""
        entry = self._by_user.get(user)
        return entry if entry is not None and entry.phase in (Phase.STARTING, Phase.READY) else None

    def bind(self, entry: Entry, user: str) -> None:
        """Give a spare to a user."""
        entry.user = user
        self._by_user[user] = entry

    def release(self, entry: Entry) -> None:
        """Take an instance that ends away from its user; another of that user takes its place, if there is one."""
        if entry.user is None or self._by_user.get(entry.user) is not entry:
            return
        del self._by_user[entry.user]
        for other in self._by_id.values():
            if other.user == entry.user and other.phase in (Phase.STARTING, Phase.READY):
                self._by_user[entry.user] = other
                return

    def remove(self, entry: Entry) -> None:
        """Forget an instance of which nothing is left."""
        self._by_id.pop(entry.id, None)
        self.release(entry)
        entry.removed.set()


class Counters:
    """What happened since the manager started."""

    def __init__(self) -> None:
        self.starts = 0
        self.start_failures = 0
        self.claimed = 0
        self.culled = 0
        self.ended_by_themselves = 0
        self.unresponsive = 0
        self.refused = 0
        self.adopted = 0
        self._start_seconds: deque[float] = deque(maxlen=1000)

    def started(self, seconds: float) -> None:
        """Note a start that succeeded."""
        self.starts += 1
        self._start_seconds.append(seconds)

    def start_quantile(self, q: float) -> float | None:
        """Return the seconds that the share `q` of the last 1,000 starts took at most, or None before the first."""
        if not self._start_seconds:
            return None
        ordered = sorted(self._start_seconds)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]
