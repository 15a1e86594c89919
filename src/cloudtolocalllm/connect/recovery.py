"""What to do after an attempt at a home failed: pure.

    the request cannot have been taken   another home, or the same once more, for `patience` seconds
    it may be running                    the same home and the same exchange id, for `deadline` seconds: the home
                                         joins the two attempts, so that nothing runs twice
    it may be running at a home that     another home, if nothing of the answer came and the request changes nothing
    is not connected any more            at home; else as before
    asking again would not help          give up

Both periods begin anew whenever something came from the home.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.runtime.backoff import Backoff

MAX_DAMAGED: Final = 3
"""Attempts in a row whose bytes were changed on the way, after which somebody does it on purpose."""
MAX_RETRY_AFTER: Final = 30.0
"""Seconds that a server's wish is followed at most."""
EAGER: Final = 60.0
"""Seconds after a break in which attempts follow each other closely."""
CALM: Final = 5.0
"""Seconds at most between attempts after that."""


class Next(Enum):
    """What comes after a failed attempt."""

    AGAIN = "again"
    """The same home, after a pause."""
    REFRESH = "refresh"
    """The same home at once, with a new key."""
    ELSEWHERE = "elsewhere"
    """Another home at once."""
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, and after how many seconds."""

    next: Next
    pause: float = 0.0


@dataclass(slots=True)
class Recovery:
    """Decides for one request. Times are seconds on a clock that never goes back."""

    patience: float
    """For a request that no home has taken."""
    deadline: float
    """For one that a home may be working for."""
    since: float
    """When something came last, or when it all began."""
    repeatable: bool = False
    """Whether asking twice does no harm, so that any home may be asked after any failure."""
    changes_nothing: bool = False
    """Whether it may be left half done at a home that is away, and be begun at another."""
    taken: bool = False
    """Whether a home may be working for it."""
    begun: bool = False
    """Whether something of an answer came."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.1, maximum=1.0))
    _damaged: int = 0
    _stale: int = 0

    def progressed(self, now: float) -> None:
        """Note that the answer has begun or gone on."""
        self.begun = True
        self.waited(now)

    def waited(self, now: float) -> None:
        """Note that a home took the request, and that nothing is wrong with its silence so far."""
        self.taken = True
        self.since = now
        self._damaged = self._stale = 0
        self.backoff.reset()

    def moved(self, now: float) -> None:
        """Note that another home is asked from now on."""
        if self.taken:
            self.taken, self.since = False, now
        self._damaged = self._stale = 0

    def failed(self, error: HomeError, now: float, *, others: bool) -> Step:
        """Return what to do after an attempt failed.

        Args:
            error: How.
            now: The time.
            others: Whether there are homes that were not asked yet.
        """
        fault = error.fault
        if fault is Fault.STALE_KEY:
            self._stale += 1
            if self._stale == 1:
                return Step(Next.REFRESH)
        if fault is Fault.DAMAGED:
            self._damaged += 1
        if fault in (Fault.LOST, Fault.DAMAGED) and not self.repeatable:
            self.taken = True
        movable = not self.taken
        left = fault is Fault.AWAY and self.changes_nothing and not self.begun
        if (movable or left) and others:
            return Step(Next.ELSEWHERE)
        if fault is Fault.REFUSED or self._damaged >= MAX_DAMAGED:
            return Step(Next.GIVE_UP)
        pause = self._pause(error, now)
        limit = self.patience if movable else self.deadline
        return Step(Next.GIVE_UP) if now + pause - self.since > limit else Step(Next.AGAIN, pause)

    def _pause(self, error: HomeError, now: float) -> float:
        if error.fault is Fault.NOT_TAKEN and error.retry_after is not None and not self.taken:
            return min(error.retry_after, MAX_RETRY_AFTER)
        pause = self.backoff.next()
        return pause if now - self.since < EAGER else pause * CALM / self.backoff.maximum
