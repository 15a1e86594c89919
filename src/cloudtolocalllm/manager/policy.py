"""What to do next, as a pure function: desired and actual state and the time in, actions out.

Rules
- A user has at most one live (starting or ready) instance; one is made only when that user asks.
- A user who asks gets a spare from the warm pool (a ready one first, else one that is starting), else a new one.
- `warm` spares are kept; a spare never takes a place beyond `max_instances`.
- A ready instance of a user is stopped when it has been idle for `idle_timeout` seconds, and only on the strength of
  a measurement made after that time had passed. A stream in flight is activity; what is unknown is not idle.
- A starting instance is never stale before `start_timeout` seconds: it is neither repeated nor stopped.
- At most `starts_at_once` start at the same time; who comes then waits, and that does not count as a start's time. A
  start that takes longer than START_PATIENCE seconds does not keep others waiting.
- What failed (gone, not answering, not started in time) is stopped, streams or not: there is nothing left to spare.
- What the driver has and nobody knows (a stray) is stopped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

MAX_RETRY_AFTER = 30.0
"""Seconds: the longest wait that a refused user is told; instances also end for other reasons than idleness."""


NO_LIMIT = 1_000_000
"""Of `starts_at_once`: more than there are places."""
START_PATIENCE = 3.0
"""Seconds for which a start keeps one of the places of starts at the same time."""


class Phase(Enum):
    """Where an instance is, as far as is known."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    """A stop is under way and repeats itself until it succeeds; nothing more needs to be decided."""
    GONE = "gone"
    """Its process ended by itself; what remains of it (folder, record) is to be removed."""
    STRAY = "stray"
    """The driver has it but nobody asked for it."""


class Reason(Enum):
    """Why an instance is stopped."""

    IDLE = "idle"
    UNRESPONSIVE = "unresponsive"
    START_TIMEOUT = "start-timeout"
    GONE = "gone"
    STRAY = "stray"
    DUPLICATE = "duplicate"
    SURPLUS = "surplus"
    DRAIN = "drain"
    REMOVED = "removed"
    START_FAILED = "start-failed"
    CLAIM_FAILED = "claim-failed"


@dataclass(frozen=True, slots=True)
class Observed:
    """One instance as it is known now. Times are monotonic seconds."""

    id: str
    user: str | None
    """None while it waits in the warm pool."""
    phase: Phase
    since: float
    """When the phase began."""
    active_at: float
    """The last known activity: being made, asked for, or a stream."""
    measured_at: float | None = None
    """When `in_flight` and `active_at` were last measured; None when they never were or are not to be relied on."""
    in_flight: int = 0
    """Streams at `measured_at`."""
    failed_checks: int = 0
    """Health checks failed in a row."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted beyond the standing rules."""

    users: tuple[str, ...] = ()
    """Users who wait for an instance, in the order in which they asked."""
    spares_after: float = 0.0
    """Monotonic seconds before which no spare is started: the pause after a failed start."""
    draining: bool = False
    """Whether everything is to end."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Limits and periods; seconds where not said otherwise."""

    warm: int = 1
    """Spare instances kept."""
    max_instances: int = 2000
    idle_timeout: float = 600.0
    start_timeout: float = 10.0
    starts_at_once: int = NO_LIMIT
    max_failed_checks: int = 3


@dataclass(frozen=True, slots=True)
class Start:
    """Make an instance, for a user or (None) for the pool."""

    user: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Give a spare to a user."""

    id: str
    user: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End an instance and remove what remains of it."""

    id: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell a waiting user that there is no place."""

    user: str
    retry_after: float
    """Seconds."""


Action = Start | Claim | Stop | Refuse


def decide(desired: Desired, actual: Iterable[Observed], now: float, config: PolicyConfig) -> list[Action]:
    """Return what to do now; an empty list when all is as it should be.

    Args:
        desired: What is wanted.
        actual: Every instance that is known, each id once.
        now: Monotonic seconds.
        config: Limits and periods.
    """
    known = list(actual)
    if desired.draining:
        return [Stop(one.id, Reason.DRAIN) for one in known if one.phase is not Phase.STOPPING]
    stops: dict[str, Reason] = {}
    for one in known:
        reason = _ending(one, now, config)
        if reason is not None:
            stops[one.id] = reason
    live = [one for one in known if one.phase in (Phase.STARTING, Phase.READY) and one.id not in stops]
    owners, duplicates = _owners(live)
    stops.update((one.id, Reason.DUPLICATE) for one in duplicates)

    # What is being stopped still holds its place; a process that is gone does not.
    places = config.max_instances - sum(one.phase is not Phase.GONE for one in known)
    spares = sorted((one for one in live if one.user is None), key=_spare_order)
    starting = sum(one.phase is Phase.STARTING and now - one.since < START_PATIENCE for one in live)
    room = _Room(places, config.starts_at_once - starting)
    asked = _serve(desired.users, owners, spares, room, now, config)
    kept = spares[: config.warm]
    stops.update((one.id, Reason.SURPLUS) for one in spares[config.warm :] if one.phase is Phase.READY)
    missing = config.warm - len(kept) if now >= desired.spares_after else 0
    actions: list[Action] = [Stop(instance, reason) for instance, reason in stops.items()]
    actions += asked
    actions += [Start(None)] * max(0, min(missing, room.places, room.starts))
    return actions


@dataclass(slots=True)
class _Room:
    """What is left while one decision is made."""

    places: int
    """Instances that may be made."""
    starts: int
    """Starts that may begin now."""


def _ending(one: Observed, now: float, config: PolicyConfig) -> Reason | None:
    """Return why this instance must end by itself, regardless of others."""
    if one.phase is Phase.GONE:
        return Reason.GONE
    if one.phase is Phase.STRAY:
        return Reason.STRAY
    if one.phase is Phase.STARTING and now - one.since >= config.start_timeout:
        return Reason.START_TIMEOUT
    if one.phase is not Phase.READY:
        return None
    if one.failed_checks >= config.max_failed_checks:
        return Reason.UNRESPONSIVE
    return Reason.IDLE if one.user is not None and _idle(one, config) else None


def _idle(one: Observed, config: PolicyConfig) -> bool:
    # An older measurement would not know of a stream that began after it.
    idle_from = one.active_at + config.idle_timeout
    return one.measured_at is not None and one.in_flight == 0 and one.measured_at >= idle_from


def _owners(live: list[Observed]) -> tuple[dict[str, Observed], list[Observed]]:
    """Return each user's instance, and what they have too many of and can be stopped without cutting a stream.

    Two for one user can only be found (after a crash between two records), never made.
    """
    owners: dict[str, Observed] = {}
    duplicates: list[Observed] = []
    for one in live:
        if one.user is None:
            continue
        other = owners.get(one.user)
        if other is None:
            owners[one.user] = one
            continue
        keep, drop = (one, other) if _rank(one) > _rank(other) else (other, one)
        owners[one.user] = keep
        if drop.phase is Phase.STARTING or (drop.measured_at is not None and drop.in_flight == 0):
            duplicates.append(drop)
    return owners, duplicates


def _rank(one: Observed) -> tuple[bool, int, float, str]:
    return (one.phase is Phase.READY, one.in_flight, one.active_at, one.id)


def _spare_order(one: Observed) -> tuple[bool, float, str]:
    return (one.phase is not Phase.READY, one.since, one.id)


def _serve(
    users: tuple[str, ...],
    owners: Mapping[str, Observed],
    spares: list[Observed],
    room: _Room,
    now: float,
    config: PolicyConfig,
) -> list[Action]:
    """Return actions for the users who wait; takes from `spares` and `room` what it uses."""
    actions: list[Action] = []
    for user in dict.fromkeys(users):
        if user in owners:
            continue
        if spares:
            actions.append(Claim(spares.pop(0).id, user))
        elif room.places > 0:
            room.places -= 1  # also for one who must wait: it is not the place of somebody who comes later
            if room.starts > 0:
                room.starts -= 1
                actions.append(Start(user))
        else:
            actions.append(Refuse(user, _retry_after(owners.values(), now, config)))
    return actions


def _retry_after(owners: Iterable[Observed], now: float, config: PolicyConfig) -> float:
    """Return when a place may be free: when the first idle instance is due, within 1 s and MAX_RETRY_AFTER."""
    due = [one.active_at + config.idle_timeout - now for one in owners if one.in_flight == 0]
    return min(max(1.0, min(due, default=MAX_RETRY_AFTER)), MAX_RETRY_AFTER)
