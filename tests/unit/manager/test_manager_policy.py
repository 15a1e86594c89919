"""The policy: single decisions, and a simulated world in which anything may fail at any time."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cloudtolocalllm.manager.policy import (
    START_PATIENCE,
    Claim,
    Desired,
    Observed,
    Phase,
    PolicyConfig,
    Reason,
    Refuse,
    Start,
    Stop,
    decide,
)

NOW = 10_000.0
CONFIG = PolicyConfig(warm=0, max_instances=4, idle_timeout=600.0, start_timeout=10.0, max_failed_checks=3)


def ready(instance: str, user: str | None = None, **changes: object) -> Observed:
    one = Observed(instance, user, Phase.READY, since=NOW - 1000, active_at=NOW - 1000, measured_at=NOW - 1)
    return dataclasses.replace(one, **changes)  # type: ignore[arg-type] # names and types are the test's own


def starting(instance: str, user: str | None = None, age: float = 1.0) -> Observed:
    return Observed(instance, user, Phase.STARTING, since=NOW - age, active_at=NOW - age)


def test_nothing_to_do_gives_no_action() -> None:
    assert decide(Desired(), [], NOW, CONFIG) == []
    assert decide(Desired(), [ready("a", "u", active_at=NOW - 1)], NOW, CONFIG) == []


def test_user_without_instance_gets_a_start() -> None:
    assert decide(Desired(("u",)), [], NOW, CONFIG) == [Start("u")]


def test_user_with_a_live_instance_gets_no_second() -> None:
    assert decide(Desired(("u",)), [starting("a", "u", age=9.9)], NOW, CONFIG) == []
    assert decide(Desired(("u",)), [ready("a", "u", active_at=NOW)], NOW, CONFIG) == []


def test_ready_spare_is_claimed_before_one_that_starts_and_is_replaced() -> None:
    config = dataclasses.replace(CONFIG, warm=2)
    spares = [starting("new"), ready("old")]
    assert decide(Desired(("u",)), spares, NOW, config) == [Claim("old", "u"), Start(None)]
    assert decide(Desired(("u", "v")), spares, NOW, config)[:2] == [Claim("old", "u"), Claim("new", "v")]


def test_spares_wait_after_a_failed_start_but_users_do_not() -> None:
    config = dataclasses.replace(CONFIG, warm=2)
    assert decide(Desired(("u",), spares_after=NOW + 1), [], NOW, config) == [Start("u")]


def test_starts_wait_for_each_other_and_nobody_is_refused_for_that() -> None:
    config = dataclasses.replace(CONFIG, warm=1, max_instances=5, starts_at_once=2)
    assert decide(Desired(("u", "v", "w")), [], NOW, config) == [Start("u"), Start("v")]
    under_way = [starting("a", "u"), starting("b", "v")]
    assert decide(Desired(("u", "v", "w")), under_way, NOW, config) == []
    done = [ready("a", "u", active_at=NOW), starting("b", "v")]
    assert decide(Desired(("v", "w")), done, NOW, config) == [Start("w")]
    # What takes long is not waited for.
    slow = [starting("a", "u", age=START_PATIENCE), starting("b", "v", age=START_PATIENCE)]
    assert decide(Desired(("u", "v", "w")), slow, NOW, config) == [Start("w"), Start(None)]
    # Who waits has a place: whoever comes later is refused.
    full = dataclasses.replace(config, max_instances=4)
    asked = decide(Desired(("u", "v", "w", "x", "y")), under_way, NOW, full)
    assert [one for one in asked if isinstance(one, Start)] == []
    assert [one.user for one in asked if isinstance(one, Refuse)] == ["y"]


def test_surplus_spares_are_stopped_the_newest_first() -> None:
    spares = [ready("a", since=NOW - 5), ready("b", since=NOW - 9)]
    assert decide(Desired(), spares, NOW, dataclasses.replace(CONFIG, warm=1)) == [Stop("a", Reason.SURPLUS)]


@pytest.mark.parametrize(
    ("changes", "culled"),
    [
        ({}, True),
        ({"in_flight": 1}, False),
        ({"measured_at": None}, False),
        ({"active_at": NOW - 599}, False),
        # Measured before the idle time was over: a stream may have begun since.
        ({"active_at": NOW - 601, "measured_at": NOW - 2}, False),
        ({"active_at": NOW - 601, "measured_at": NOW - 1}, True),
    ],
)
def test_idle_is_what_was_seen_idle_after_the_whole_time(changes: dict[str, object], culled: bool) -> None:
    expected = [Stop("a", Reason.IDLE)] if culled else []
    assert decide(Desired(), [ready("a", "u", **changes)], NOW, CONFIG) == expected


def test_spares_are_never_idle() -> None:
    assert decide(Desired(), [ready("a")], NOW, dataclasses.replace(CONFIG, warm=1)) == []


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (starting("a", "u", age=10.0), Reason.START_TIMEOUT),
        (ready("a", "u", failed_checks=3, in_flight=2), Reason.UNRESPONSIVE),
        (ready("a", "u", phase=Phase.GONE), Reason.GONE),
        (ready("a", phase=Phase.STRAY), Reason.STRAY),
    ],
)
def test_what_failed_is_stopped_and_a_waiting_user_gets_another(one: Observed, reason: Reason) -> None:
    assert decide(Desired(("u",)), [one], NOW, CONFIG) == [Stop("a", reason), Start("u")]


def test_no_place_is_a_refusal_with_the_time_of_the_next_idle_instance() -> None:
    full = [ready(str(n), f"u{n}", active_at=NOW - 590 - n, measured_at=NOW - 20) for n in range(4)]
    assert decide(Desired(("w",)), full, NOW, CONFIG) == [Refuse("w", 7.0)]
    busy = [dataclasses.replace(one, in_flight=1) for one in full]
    assert decide(Desired(("w",)), busy, NOW, CONFIG) == [Refuse("w", 30.0)]


def test_what_is_stopping_still_holds_its_place_and_what_is_gone_does_not() -> None:
    config = dataclasses.replace(CONFIG, max_instances=1)
    assert decide(Desired(("w",)), [ready("a", "u", phase=Phase.STOPPING)], NOW, config) == [Refuse("w", 30.0)]
    gone = ready("a", "u", phase=Phase.GONE)
    assert decide(Desired(("w",)), [gone], NOW, config) == [Stop("a", Reason.GONE), Start("w")]


def test_of_two_instances_of_a_user_the_one_without_streams_goes() -> None:
    two = [ready("a", "u", active_at=NOW), ready("b", "u", active_at=NOW - 5, in_flight=1)]
    assert decide(Desired(), two, NOW, CONFIG) == [Stop("a", Reason.DUPLICATE)]
    both_busy = [dataclasses.replace(one, in_flight=1) for one in two]
    assert decide(Desired(), both_busy, NOW, CONFIG) == []


def test_draining_stops_everything_once() -> None:
    known = [starting("a"), ready("b", "u", in_flight=1), ready("c", phase=Phase.STOPPING)]
    expected = [Stop("a", Reason.DRAIN), Stop("b", Reason.DRAIN)]
    assert decide(Desired(("w",), draining=True), known, NOW, CONFIG) == expected


USERS = ("u0", "u1", "u2", "u3")
FAILED = {Reason.UNRESPONSIVE, Reason.START_TIMEOUT, Reason.GONE, Reason.STRAY}

times = st.floats(min_value=NOW - 2000, max_value=NOW)


@st.composite
def observed(draw: st.DrawFn) -> list[Observed]:
    size = draw(st.integers(0, 8))
    return [
        Observed(
            id=f"px-{n}",
            user=draw(st.sampled_from((None, *USERS))),
            phase=draw(st.sampled_from(Phase)),
            since=draw(times),
            active_at=draw(times),
            measured_at=draw(st.none() | times),
            in_flight=draw(st.integers(0, 2)),
            failed_checks=draw(st.integers(0, 4)),
        )
        for n in range(size)
    ]


configs = st.builds(PolicyConfig, warm=st.integers(0, 3), max_instances=st.integers(1, 8))


@settings(max_examples=300)
@given(observed(), st.lists(st.sampled_from(USERS), unique=True), configs, st.booleans())
def test_any_state_gives_actions_within_the_rules(
    actual: list[Observed], users: list[str], config: PolicyConfig, pausing: bool
) -> None:
    actions = decide(Desired(tuple(users), NOW + 1 if pausing else 0.0), actual, NOW, config)
    by_id = {one.id: one for one in actual}
    touched = Counter(action.id for action in actions if isinstance(action, Stop | Claim))
    assert all(count == 1 for count in touched.values())
    stopped = {action.id: action.reason for action in actions if isinstance(action, Stop)}
    for instance, reason in stopped.items():
        one = by_id[instance]
        assert one.phase is not Phase.STOPPING
        assert reason in FAILED or one.in_flight == 0 or one.phase is Phase.STARTING or one.user is None
        if one.phase is Phase.STARTING and reason is not Reason.DUPLICATE:
            assert NOW - one.since >= config.start_timeout
    # Capacity: what is there, but for what is dead, and what is to be made.
    starts = [action for action in actions if isinstance(action, Start)]
    there = sum(one.phase is not Phase.GONE for one in actual)
    assert not starts or there + len(starts) <= config.max_instances
    # At most one instance more for a user, and none for one who has one.
    given_to = Counter(a.user for a in actions if isinstance(a, Start | Claim) and a.user is not None)
    assert all(count == 1 for count in given_to.values())
    assert set(given_to) <= set(users)
    live = {one.user for one in actual if one.phase in (Phase.STARTING, Phase.READY) and one.id not in stopped}
    assert not live & set(given_to)
    # Nobody who asks is forgotten.
    refused = {action.user for action in actions if isinstance(action, Refuse)}
    assert set(users) <= live | set(given_to) | refused
    assert not refused & (live | set(given_to))


class World(RuleBasedStateMachine):
    """Instances that start, fail, hang, serve streams and die, and a reconciler that only does what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.known: dict[str, Observed] = {}
        self.waiting: list[str] = []
        self.config = PolicyConfig()
        self.made = 0
        self.dead: set[str] = set()

    @initialize(warm=st.integers(0, 2), most=st.integers(1, 6))
    def begin(self, warm: int, most: int) -> None:
        self.config = PolicyConfig(warm=warm, max_instances=most, idle_timeout=60.0, start_timeout=10.0)

    def change(self, one: Observed, **changes: object) -> None:
        self.known[one.id] = dataclasses.replace(one, **changes)  # type: ignore[arg-type] # the test's own names

    def pick(self, index: int, *phases: Phase) -> Observed | None:
        some = [one for one in self.known.values() if one.phase in phases]
        return some[index % len(some)] if some else None

    @rule()
    def step(self) -> None:
        for action in decide(Desired(tuple(self.waiting)), self.known.values(), self.now, self.config):
            if isinstance(action, Start):
                self.made += 1
                name = f"px-{self.made}"
                self.known[name] = Observed(name, action.user, Phase.STARTING, self.now, self.now)
            elif isinstance(action, Claim):
                self.change(self.known[action.id], user=action.user, active_at=self.now)
            elif isinstance(action, Refuse):
                self.waiting.remove(action.user)
            else:
                one = self.known[action.id]
                assert one.in_flight == 0 or action.reason in FAILED
                self.change(one, phase=Phase.STOPPING, user=None)
        served = {one.user for one in self.known.values() if one.phase is Phase.READY}
        self.waiting = [user for user in self.waiting if user not in served]

    @rule(user=st.sampled_from(USERS))
    def ask(self, user: str) -> None:
        owners = [one for one in self.known.values() if one.user == user and one.phase is Phase.READY]
        if owners:
            self.change(owners[0], active_at=self.now)
        elif user not in self.waiting:
            self.waiting.append(user)

    @rule(seconds=st.floats(0.1, 40.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(index=st.integers(0, 9))
    def becomes_ready(self, index: int) -> None:
        if one := self.pick(index, Phase.STARTING):
            self.change(one, phase=Phase.READY, since=self.now, active_at=self.now)

    @rule(index=st.integers(0, 9))
    def is_removed(self, index: int) -> None:
        if one := self.pick(index, Phase.STOPPING):
            del self.known[one.id]

    @rule(index=st.integers(0, 9))
    def dies(self, index: int) -> None:
        if one := self.pick(index, Phase.STARTING, Phase.READY):
            self.change(one, phase=Phase.GONE)
            self.dead.add(one.id)

    @rule(index=st.integers(0, 9), streams=st.integers(0, 3))
    def is_measured(self, index: int, streams: int) -> None:
        one = self.pick(index, Phase.READY)
        if one is not None and one.user is not None:
            active = self.now if streams else one.active_at
            self.change(one, in_flight=streams, measured_at=self.now, active_at=active, failed_checks=0)

    @rule(index=st.integers(0, 9))
    def does_not_answer(self, index: int) -> None:
        if one := self.pick(index, Phase.READY):
            self.change(one, failed_checks=one.failed_checks + 1)

    @invariant()
    def one_for_each_user(self) -> None:
        live = [o.user for o in self.known.values() if o.user and o.phase in (Phase.STARTING, Phase.READY)]
        assert len(live) == len(set(live))

    @invariant()
    def within_capacity(self) -> None:
        # What is left of a dead one (a folder) takes no place, whether or not it is being removed.
        assert len(self.known.keys() - self.dead) <= self.config.max_instances

    def teardown(self) -> None:
        """Left in peace, everything settles: who waits is served or refused, spares are there, and then rest."""
        for _ in range(4):
            self.step()
            for one in list(self.known.values()):
                if one.phase is Phase.STARTING:
                    self.change(one, phase=Phase.READY, since=self.now, active_at=self.now)
                elif one.phase is Phase.STOPPING:
                    del self.known[one.id]
                elif one.failed_checks:
                    self.change(one, failed_checks=0)
        self.step()
        assert self.waiting == []
        spares = sum(one.user is None for one in self.known.values())
        free = self.config.max_instances - len(self.known)
        assert spares == self.config.warm or (spares < self.config.warm and free == 0)
        assert decide(Desired(), self.known.values(), self.now, self.config) == []


World.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestWorld = World.TestCase
