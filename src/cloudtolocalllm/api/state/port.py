"""The port: values with an expiry, groups of members with an expiry each, and rate counters.

Every operation is atomic, also between replicas. Keys, groups and members are printable ASCII of at most 200
characters without spaces; values at most 64 KiB; times to live above 0 and at most 400 days. Anything else is a
ValueError. What has expired is gone for every operation at once, and erased by one of the next sweeps at the latest.
Nothing that a user said or is called ever goes in.

Keys of values, groups and keys of rate counters are three spaces: the same name in two of them is two things.
Every operation can raise StateUnavailableError; of what it asked for, it is then not known whether it was done.
"""

from dataclasses import dataclass
from typing import Protocol


class StateUnavailableError(Exception):
    """The store behind the port does not answer in time. The text is for the log."""


class StateError(Exception):
    """The store cannot be used as it is; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What a rate counter says."""

    allowed: bool
    limit: int
    remaining: int
    """What the window still allows after this one."""
    retry_after: float
    """Seconds until one more is allowed, after a refusal until the same is; 0 when it is now."""


class State(Protocol):
    """What the cloud remembers."""

    async def get(self, key: str) -> bytes | None:
        """Return a value; None when there is none or it has expired."""
        ...

    async def put(self, key: str, value: bytes, ttl: float, *, only_new: bool = False) -> bool:
        """Keep a value for `ttl` seconds.

        Returns:
            False, with nothing changed, when `only_new` and there is one already.
        """
        ...

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """Put `new` in place of `old`; False, with nothing changed, when the value is another one by now."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Return a value and delete it: of several callers at once, one gets it."""
        ...

    async def delete(self, key: str) -> bool:
        """Delete a value; False when there was none."""
        ...

    async def add(self, group: str, member: str, value: bytes, ttl: float, *, limit: int | None = None) -> bool:
        """Add a member to a group, or replace it, for `ttl` seconds.

        Returns:
            False, with nothing changed, when it would be a new member beyond `limit` living ones.
        """
        ...

    async def remove(self, group: str, member: str) -> bytes | None:
        """Remove a member and return its value; None when there was none."""
        ...

    async def members(self, *groups: str) -> list[dict[str, bytes]]:
        """Return the living members of each group, in one exchange with the store."""
        ...

    async def hit(self, key: str, *, limit: int, window: float, cost: int = 1) -> Hit:
        """Count something against `limit` per `window` seconds (GCRA, which has no edge to hit twice at).

        Args:
            key: What is limited.
            limit: How many may come at once, and per window on the whole.
            window: Seconds.
            cost: How much this one counts; what is refused does not count, and more than `limit` always is. 0 asks
                whether 1 would be allowed, without counting.
        """
        ...

    async def sweep(self) -> int:
        """Erase some of what has expired; to be called every minute or so.

        Returns:
            How many this call erased.
        """
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
