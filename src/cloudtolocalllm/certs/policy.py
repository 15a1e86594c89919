"""When to ask the certificate authority, so that a renewal is never late and no limit is ever hit. No I/O, no clock.

Let's Encrypt's limits (https://letsencrypt.org/docs/rate-limits/), each a bucket that fills up again:

- failed validations: 5 per account and hostname an hour, one back every 12 minutes;
- certificates for the exact same set of names: 5 a week, one back every 34 hours;
- consecutive failed validations per account and hostname: 1,152, one back a day, all back with a success.

We stay below each: at most `FAILURES_AN_HOUR` and `CERTIFICATES_A_WEEK` in any hour and week, and a pause that grows
to longer than a day while nothing but failures comes. What is not known counts as bad: an attempt whose end was never
recorded, because the process died, counts as a failure and as a certificate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WEEK = 7 * DAY

CHECK_EVERY = 12 * HOUR
"""Seconds between looks at a certificate that is fit: twice a day, as Let's Encrypt asks."""
SHARE_LEFT = 1 / 3
"""Of its life that a certificate has left when it is renewed: 30 of 90 days, as Let's Encrypt advises."""
SHORT_LIFE = 10 * DAY
"""Certificates of less than this are renewed at half their life, as Let's Encrypt advises for those of 6 days."""

FAILURES_AN_HOUR = 3
CERTIFICATES_A_WEEK = 4
FIRST_PAUSE = 10 * MINUTE
URGENT = 7 * DAY
"""A certificate with less left than this, or none, is worth trying for every hour."""
LONG_PAUSE = 12 * HOUR
RECORDS_KEPT = 8 * DAY
"""Seconds that an attempt stays in the history: more than the longest window."""
MAX_RECORDS = 1000
"""More than `FAILURES_AN_HOUR` and the pauses let come together in `RECORDS_KEPT`."""

PATIENT = 500
"""Failures in a row after which the pause is slower than their limit fills up again, and nobody ends it."""
_CEILINGS = ((PATIENT, 26 * HOUR), (100, 12 * HOUR), (24, 6 * HOUR), (0, HOUR))
"""The longest pause after more than so many failures in a row, for an urgent certificate: hourly for the first day;
at the end slower than the 1,152 consecutive failures fill up again."""


class Outcome(Enum):
    """How an attempt ended."""

    PENDING = "pending"
    """It runs, or the process died during it."""
    ISSUED = "issued"
    UNFIT = "unfit"
    """A certificate came and could not be used."""
    FAILED = "failed"
    LIMITED = "limited"
    """The authority said that a limit is reached."""


_ISSUING = (Outcome.ISSUED, Outcome.UNFIT, Outcome.PENDING)
_FAILING = (Outcome.FAILED, Outcome.LIMITED, Outcome.UNFIT, Outcome.PENDING)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that the authority was asked."""

    begun: float
    """Seconds since the epoch."""
    names: tuple[str, ...]
    """Sorted."""
    outcome: Outcome
    jitter: float
    """Random, from 0 up to 1; drawn once, so that the pause after it does not depend on how often one asks."""
    plan: str
    """Which settings it was made with: a change of them ends the pause, never a limit."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The attempts at one authority, oldest first, and how many in a row failed."""

    attempts: tuple[Attempt, ...] = ()
    streak: int = 0
    last_issued: float | None = None
    issued: int = 0
    """Of all time, as `failed`."""
    failed: int = 0

    def begun(self, attempt: Attempt) -> "Ledger":
        """Return it with an attempt that starts: for the disk, before the authority hears of it."""
        same = bool(self.attempts) and self.attempts[-1].plan == attempt.plan
        kept = [a for a in self.attempts if a.begun > attempt.begun - RECORDS_KEPT][-(MAX_RECORDS - 1) :]
        # Counted as failed at once: a process that dies here leaves the count of a failure behind.
        streak = (self.streak if same else 0) + 1
        return Ledger((*kept, attempt), streak, self.last_issued, self.issued, self.failed + 1)

    def ended(self, outcome: Outcome, now: float) -> "Ledger":
        """Return it with the end of the newest attempt."""
        *before, last = self.attempts
        done = Attempt(last.begun, last.names, outcome, last.jitter, last.plan)
        if outcome is Outcome.ISSUED:
            return Ledger((*before, done), 0, now, self.issued + 1, max(0, self.failed - 1))
        return Ledger((*before, done), self.streak, self.last_issued, self.issued, self.failed)

    @property
    def settled(self) -> tuple[int, int]:
        """How many failed of all time, and how many in a row, without the one that may still come to a good end.

        So the first never falls, as a counter must not (`begun` and `ended` take one back with each success).
        """
        running = bool(self.attempts) and self.attempts[-1].outcome is Outcome.PENDING
        return max(0, self.failed - running), max(0, self.streak - running)

    def clamped(self, now: float) -> "Ledger":
        """Return it without times that are yet to come, which a clock that was set back leaves: they become now."""
        attempts = tuple(
            Attempt(min(a.begun, now), a.names, a.outcome, a.jitter, a.plan) for a in self.attempts[-MAX_RECORDS:]
        )
        issued = None if self.last_issued is None else min(self.last_issued, now)
        return Ledger(attempts, self.streak, issued, self.issued, self.failed)


def lost(names: Sequence[str], now: float) -> Ledger:
    """Return what to assume when the history cannot be read: that the hour is used up, and half of the week."""
    ordered = tuple(sorted(names))
    attempts = [Attempt(now, ordered, Outcome.PENDING, 0.5, "") for _ in range(2)]
    return Ledger((*attempts, Attempt(now, ordered, Outcome.FAILED, 0.5, "")), streak=3)


@dataclass(frozen=True, slots=True)
class Life:
    """From when until when a certificate holds, in seconds since the epoch."""

    not_before: float
    not_after: float

    @property
    def due(self) -> float:
        """When to renew it."""
        length = self.not_after - self.not_before
        return self.not_after - length * (0.5 if length < SHORT_LIFE else SHARE_LEFT)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: ask the authority now, or look again at `at`."""

    act: bool
    at: float
    """Seconds since the epoch."""
    why: str


def decide(
    life: Life | None,
    ledger: Ledger,
    names: Sequence[str],
    plan: str,
    now: float,
    *,
    check_at: float = 0.0,
    asked: bool = False,
) -> Decision:
    """Decide whether to ask the authority now.

    Args:
        life: Of the certificate in place; None when there is none that is fit.
        ledger: The history at this authority.
        names: What the certificate is for.
        plan: Which settings it would be made with.
        now: Seconds since the epoch.
        check_at: When the next of the two looks a day is; a first renewal waits for it.
        asked: Somebody asks not to wait for the end of the pause. The limits hold all the same.
    """
    if life is not None and now < life.due:
        return Decision(False, life.due, "the certificate is fit and not yet due")
    holds = [(_limited_until(ledger, names, now), "the authority's limits allow no attempt before")]
    if not asked or ledger.streak > PATIENT:
        holds.append((_pause_ends(life, ledger, plan, now), "an earlier attempt failed; the pause ends"))
        if life is not None and ledger.streak == 0 and now < life.not_after - URGENT:
            holds.append((check_at, "the renewal is due and waits for the next look"))
    at, why = max(holds)
    if at > now:
        return Decision(False, at, why)
    return Decision(True, now, "there is no fit certificate" if life is None else "the renewal is due")


def next_look(now: float, jitter: float) -> float:
    """Return when to look again: on average twice a day, spread so that not all servers come at once."""
    return now + CHECK_EVERY * (0.75 + 0.5 * jitter)


def _limited_until(ledger: Ledger, names: Sequence[str], now: float) -> float:
    wanted, ordered = set(names), tuple(sorted(names))
    # A failed validation counts for the name that failed; which one it was is not known, so each that was asked for.
    failures = [a.begun for a in ledger.attempts if a.outcome in _FAILING and wanted & set(a.names)]
    issued = [a.begun for a in ledger.attempts if a.outcome in _ISSUING and a.names == ordered]
    return max(
        _free_at(failures, FAILURES_AN_HOUR, HOUR, now),
        _free_at(issued, CERTIFICATES_A_WEEK, WEEK, now),
    )


def _free_at(times: Iterable[float], limit: int, window: float, now: float) -> float:
    """Return from when on fewer than `limit` of the times lie in the window that ends then.

    An attempt lasts up to a quarter of an hour and the authority counts when it ends, hence the longer window.
    """
    window += HOUR / 4
    recent = sorted(t for t in times if t > now - window)
    return recent[-limit] + window if len(recent) >= limit else now


def _pause_ends(life: Life | None, ledger: Ledger, plan: str, now: float) -> float:
    if not ledger.attempts or ledger.streak == 0:
        return now
    last = ledger.attempts[-1]
    if last.plan not in (plan, ""):
        return now
    urgent = life is None or life.not_after - now < URGENT
    ceiling = next(pause for over, pause in _CEILINGS if ledger.streak > over) if urgent else LONG_PAUSE
    if ledger.streak > PATIENT:
        ceiling = _CEILINGS[0][1]
    pause = min(FIRST_PAUSE * 2.0 ** min(ledger.streak - 1, 20), ceiling)
    if last.outcome is Outcome.LIMITED:
        pause = max(pause, LONG_PAUSE)
    # Jitter only makes it longer where the ceiling keeps a limit.
    return last.begun + pause * (1.0 + 0.25 * last.jitter)
