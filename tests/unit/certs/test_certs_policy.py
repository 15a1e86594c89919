"""When the authority is asked: months with a clock of the test's, against Let's Encrypt's limits as it words them."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.certs import policy
from cloudtolocalllm.certs.policy import DAY, HOUR, MINUTE, WEEK, Attempt, Ledger, Life, Outcome, decide

NAMES = ("example.org", "*.example.org")
SORTED = tuple(sorted(NAMES))
START = 1_800_000_000.0
REPEAT = settings(max_examples=40, deadline=None)


@dataclass
class Bucket:
    """A limit as Let's Encrypt describes it: so many at once, and one back after each period."""

    capacity: float
    period: float
    level: float = field(init=False)
    at: float = START

    def __post_init__(self) -> None:
        self.level = self.capacity

    def take(self, now: float, what: str) -> None:
        self.level = min(self.capacity, self.level + (now - self.at) / self.period)
        self.at = now
        assert self.level >= 1, f"the limit of {what} is hit"
        self.level -= 1

    def fill(self) -> None:
        self.level = self.capacity


class Authority:
    """Counts as Let's Encrypt does, and fails the test when one of its limits is hit."""

    def __init__(self) -> None:
        self.failures = Bucket(5, 12 * MINUTE)
        self.consecutive = Bucket(1152, DAY)
        self.duplicates = Bucket(5, WEEK / 5)
        self.asked = 0

    def ask(self, now: float, *, works: bool) -> None:
        self.asked += 1
        if works:
            self.duplicates.take(now, "duplicate certificates")
            self.consecutive.fill()
        else:
            self.failures.take(now, "failed validations")
            self.consecutive.take(now, "consecutive failures")


@dataclass
class World:
    """One supervisor and its authority over time."""

    rng: random.Random
    lifetime: float = 90 * DAY
    crashes: float = 0.0
    """How often the process dies during an attempt."""
    asked: bool = False
    keeps: bool = True
    """What is issued gets deployed."""
    now: float = START
    ledger: Ledger = field(default_factory=Ledger)
    life: Life | None = None
    check_at: float = 0.0
    expired: int = 0
    authority: Authority = field(default_factory=Authority)

    def run(self, end: float, works: "list[tuple[float, bool]] | float") -> None:
        while self.now < end:
            d = decide(
                self.life, self.ledger, NAMES, "plan", self.now, check_at=self.check_at, asked=self.asked
            )  # fmt: skip
            if self.now >= self.check_at:
                self.check_at = policy.next_look(self.now, self.rng.random())
            if d.act:
                self._attempt(works)
            else:
                assert d.at > self.now
                self.now = min(end, d.at)
            if self.life is not None and self.now >= self.life.not_after:
                self.expired += 1
                self.life = None

    def _attempt(self, works: "list[tuple[float, bool]] | float") -> None:
        attempt = Attempt(self.now, SORTED, Outcome.PENDING, self.rng.random(), "plan")
        self.ledger = self.ledger.begun(attempt)
        self.now += self.rng.uniform(1, 14 * MINUTE)
        if isinstance(works, float):
            good = self.rng.random() < works
        else:
            good = next((up for until, up in works if self.now < until), True)
        self.authority.ask(self.now, works=good)
        if self.rng.random() < self.crashes:
            self.check_at = 0.0
            return
        self.ledger = self.ledger.ended(Outcome.ISSUED if good else Outcome.FAILED, self.now)
        if good and self.keeps:
            self.life = Life(self.now - HOUR, self.now + self.lifetime)


@REPEAT
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.5]), st.sampled_from([0.0, 0.3, 1.0]), st.booleans())
def test_no_limit_is_ever_hit(seed: int, works: float, crashes: float, asked: bool) -> None:
    world = World(random.Random(seed), crashes=crashes, asked=asked)
    world.run(START + 20 * WEEK, works)
    assert world.authority.asked > 0


def test_a_crash_loop_after_each_certificate_hits_no_limit() -> None:
    world = World(random.Random(1), crashes=1.0, keeps=False)
    world.run(START + 10 * WEEK, 1.0)
    assert 0 < world.authority.asked <= 4 * 10 + 4


def test_certificates_that_cannot_be_deployed_are_not_asked_for_without_end() -> None:
    world = World(random.Random(2), keeps=False)
    world.run(START + 10 * WEEK, 1.0)
    assert 0 < world.authority.asked <= 4 * 10 + 4


def test_an_authority_that_is_dead_for_years_is_asked_ever_less_and_still_asked() -> None:
    world = World(random.Random(3))
    world.run(START + 2 * 365 * DAY, 0.0)
    before = world.authority.asked
    world.run(START + 4 * 365 * DAY, 0.0)
    assert 365 < world.authority.asked - before < 2 * 365


@REPEAT
@given(st.integers(0, 2**32), st.sampled_from([6.5 * DAY, 45 * DAY, 90 * DAY]))
def test_it_is_always_renewed_in_time_when_half_of_the_attempts_work(seed: int, lifetime: float) -> None:
    world = World(random.Random(seed), lifetime=lifetime)
    world.run(START + 40 * WEEK, 0.5)
    assert world.life is not None
    assert world.expired == 0


@REPEAT
@given(st.integers(0, 2**32), st.sampled_from([6.5, 45.0, 90.0]), st.data())
def test_it_is_always_renewed_in_time_when_the_authority_is_away_half_of_the_time(
    seed: int, days: float, data: st.DataObject
) -> None:
    outage = st.floats(0.1, days / 6 * 24)
    now, blocks = START, [(START + DAY, True)]
    for hours in data.draw(st.lists(outage, min_size=20, max_size=60)):
        now = blocks[-1][0]
        blocks += [(now + hours * HOUR, False), (now + 2 * hours * HOUR, True)]
    world = World(random.Random(seed), lifetime=days * DAY)
    world.run(blocks[-1][0], blocks)
    assert world.expired == 0


def test_missing_is_asked_for_at_once_and_fit_is_left_alone() -> None:
    assert decide(None, Ledger(), NAMES, "p", START).act
    life = Life(START, START + 90 * DAY)
    decision = decide(life, Ledger(), NAMES, "p", START)
    assert not decision.act
    assert decision.at == START + 60 * DAY


@pytest.mark.parametrize(("days", "share"), [(90, 2 / 3), (45, 2 / 3), (6, 1 / 2)])
def test_when_a_renewal_is_due(days: float, share: float) -> None:
    assert Life(START, START + days * DAY).due == pytest.approx(START + days * DAY * share)


def test_a_due_renewal_waits_for_the_next_look_and_an_urgent_one_does_not() -> None:
    look = START + 2 * HOUR
    calm, urgent = Life(START - 70 * DAY, START + 20 * DAY), Life(START - 85 * DAY, START + 5 * DAY)
    assert decide(calm, Ledger(), NAMES, "p", START, check_at=look).at == look
    assert decide(urgent, Ledger(), NAMES, "p", START, check_at=look).act


def failed(*, at: float, plan: str = "p", outcome: Outcome = Outcome.FAILED, ledger: Ledger | None = None) -> Ledger:
    attempt = Attempt(at, SORTED, Outcome.PENDING, 0.0, plan)
    return (ledger or Ledger()).begun(attempt).ended(outcome, at)


def test_a_pause_follows_a_failure_and_grows() -> None:
    once = failed(at=START)
    assert decide(None, once, NAMES, "p", START + 1).at == START + policy.FIRST_PAUSE
    twice = failed(at=START, ledger=once)
    assert decide(None, twice, NAMES, "p", START + 1).at == START + 2 * policy.FIRST_PAUSE


def test_a_mended_setting_and_a_request_end_the_pause_and_no_limit() -> None:
    ledger = failed(at=START)
    assert decide(None, ledger, NAMES, "mended", START + 1).act
    assert decide(None, ledger, NAMES, "p", START + 1, asked=True).act
    for _ in range(policy.FAILURES_AN_HOUR - 1):
        ledger = failed(at=START, ledger=ledger)
    for plan, asked in (("mended", False), ("p", True)):
        decision = decide(None, ledger, NAMES, plan, START + 1, asked=asked)
        assert not decision.act
        assert decision.at >= START + HOUR


def test_names_that_overlap_count_for_failures_and_only_the_same_set_for_certificates() -> None:
    ledger = Ledger()
    for _ in range(4):
        attempt = Attempt(START, ("example.org",), Outcome.PENDING, 0.0, "p")
        ledger = ledger.begun(attempt).ended(Outcome.FAILED, START)
    assert not decide(None, ledger, NAMES, "q", START + 1).act
    assert decide(None, ledger, ("example.net",), "q", START + 1).act
    issued = Ledger()
    for _ in range(4):
        attempt = Attempt(START, ("example.org",), Outcome.PENDING, 0.0, "p")
        issued = issued.begun(attempt).ended(Outcome.ISSUED, START)
    assert decide(None, issued, NAMES, "p", START + 1).act
    assert decide(None, issued, ("example.org",), "p", START + 1).at >= START + WEEK


def test_a_limit_that_the_authority_tells_of_makes_a_long_pause() -> None:
    ledger = failed(at=START, outcome=Outcome.LIMITED)
    assert decide(None, ledger, NAMES, "p", START + 1).at >= START + policy.LONG_PAUSE


def test_a_clock_that_was_set_back_neither_frees_nor_blocks_for_long() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger = failed(at=START + 365 * DAY, ledger=ledger)
    decision = decide(None, ledger.clamped(START), NAMES, "p", START)
    assert START + HOUR <= decision.at <= START + 2 * HOUR


def test_a_lost_history_counts_as_the_hour_used_up() -> None:
    decision = decide(None, policy.lost(NAMES, START), NAMES, "p", START + 1, asked=True)
    assert START + HOUR <= decision.at <= START + 2 * HOUR


def test_the_history_stays_bounded() -> None:
    ledger, now = Ledger(), START
    for _ in range(3 * policy.MAX_RECORDS):
        now += MINUTE
        ledger = failed(at=now, ledger=ledger)
    assert len(ledger.attempts) <= policy.MAX_RECORDS
