"""The rate counter's arithmetic: GCRA in its form of a leaky bucket (ITU-T I.371, continuous-state).

A level rises by the cost of what is let in and falls by `limit` per `window`; what would raise it above `limit` is
refused and does not count. The script in `redis_scripts` does the same where several replicas share a store.
"""

import math
from dataclasses import dataclass

from cloudtolocalllm.api.state.port import Hit

SLACK = 1e-6
"""How far above the limit the level may be: more than the rounding of doubles at MAX_LIMIT, less than any cost."""


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket is."""

    used: float
    """What counted and has not leaked yet."""
    at: float
    """When that was so, in seconds since the epoch."""


def fill(before: Level | None, now: float, *, limit: int, window: float, cost: int) -> tuple[bool, Level]:
    """Count something, unless it is too much.

    Args:
        before: None when nothing counted for a window or more.
        now: Seconds since the epoch.
        limit: See `State.hit`.
        window: See `State.hit`.
        cost: See `State.hit`.

    Returns:
        Whether it was let in, and the level after it.
    """
    used = 0.0
    if before is not None:
        now = max(now, before.at)  # a clock that was set back gives nothing twice
        used = max(0.0, before.used - (now - before.at) * limit / window)
    allowed = used + max(cost, 1) <= limit + SLACK
    return allowed, Level(used + cost if allowed else used, now)


def life(used: float, *, limit: int, window: float) -> float:
    """Return the seconds until a level has leaked away and need not be kept."""
    return used * window / limit


def answer(*, allowed: bool, used: float, limit: int, window: float, cost: int) -> Hit:
    """Put into words what a level means.

    Args:
        allowed: Whether it was let in.
        used: The level after it.
        limit: See `State.hit`.
        window: See `State.hit`.
        cost: See `State.hit`.
    """
    remaining = max(0, math.floor(limit - used + SLACK))
    if cost > limit:
        return Hit(allowed, limit, remaining, window)  # no wait is long enough; 0 would invite to try at once
    # After something that was let in: until one more is. After a refusal: until the same is.
    wanted = 1 if allowed else max(cost, 1)
    missing = used + wanted - limit
    if missing <= SLACK:
        return Hit(allowed, limit, remaining, 0.0)
    # One to two milliseconds more, so that who waits exactly this long is not too early by a tick of a clock.
    wait = math.ceil(life(missing, limit=limit, window=window) * 1000) + 1
    return Hit(allowed, limit, remaining, wait / 1000)
