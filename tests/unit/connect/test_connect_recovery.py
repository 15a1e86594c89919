"""What comes after a failed attempt."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.connect.errors import Fault, HomeError
from cloudtolocalllm.connect.recovery import CALM, EAGER, MAX_DAMAGED, Next, Recovery
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.backoff import Backoff


class Longest(random.Random):
    """Takes the longest pause."""

    def uniform(self, a: float, b: float) -> float:
        return b


def recovery(**more: bool) -> Recovery:
    return Recovery(10.0, 600.0, 0.0, backoff=Backoff(first=0.1, maximum=1.0, rng=Longest()), **more)


def error(fault: Fault, retry_after: float | None = None) -> HomeError:
    return HomeError(fault, Problem.BRIDGE_OFFLINE, "It is away.", retry_after=retry_after)


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.NOT_TAKEN, Fault.AWAY, Fault.REFUSED])
def test_what_no_home_has_taken_may_go_to_another(fault: Fault) -> None:
    assert recovery().failed(error(fault), 0.0, others=True).next is Next.ELSEWHERE


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DAMAGED])
def test_what_may_be_running_stays_where_it_is(fault: Fault) -> None:
    one = recovery()
    assert one.failed(error(fault), 0.0, others=True).next is Next.AGAIN
    assert one.failed(error(Fault.NOT_SENT), 1.0, others=True).next is Next.AGAIN


def test_what_has_begun_stays_where_it_is() -> None:
    one = recovery()
    one.progressed(0.0)
    assert one.failed(error(Fault.NOT_TAKEN), 0.0, others=True).next is Next.AGAIN


def test_what_changes_nothing_leaves_a_home_that_is_away_until_its_answer_has_begun() -> None:
    one = recovery(changes_nothing=True)
    assert one.failed(error(Fault.LOST), 0.0, others=True).next is Next.AGAIN
    assert one.failed(error(Fault.NOT_TAKEN), 1.0, others=True).next is Next.AGAIN  # it may be there all the same
    assert one.failed(error(Fault.AWAY), 2.0, others=False).next is Next.AGAIN
    assert one.failed(error(Fault.AWAY), 20.0, others=True).next is Next.ELSEWHERE
    one.moved(20.0)
    assert one.failed(error(Fault.NOT_SENT), 25.0, others=False).next is Next.AGAIN  # that home has its own time
    assert one.failed(error(Fault.NOT_SENT), 30.0, others=False).next is Next.GIVE_UP
    one = recovery(changes_nothing=True)
    one.progressed(0.0)
    assert one.failed(error(Fault.AWAY), 1.0, others=True).next is Next.AGAIN
    one = recovery()
    one.failed(error(Fault.LOST), 0.0, others=True)
    assert one.failed(error(Fault.AWAY), 1.0, others=True).next is Next.AGAIN


def test_homes_that_are_asked_in_turn_do_not_prolong_it() -> None:
    one = recovery()
    one.moved(9.0)
    assert one.failed(error(Fault.AWAY), 10.0, others=False).next is Next.GIVE_UP


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DAMAGED])
def test_what_can_be_repeated_goes_anywhere(fault: Fault) -> None:
    assert recovery(repeatable=True).failed(error(fault), 0.0, others=True).next is Next.ELSEWHERE


def test_patience_is_for_what_was_not_taken_and_the_deadline_for_what_was() -> None:
    assert recovery().failed(error(Fault.NOT_TAKEN), 9.0, others=False).next is Next.AGAIN
    assert recovery().failed(error(Fault.NOT_TAKEN), 10.0, others=False).next is Next.GIVE_UP
    assert recovery().failed(error(Fault.LOST), 500.0, others=False).next is Next.AGAIN
    assert recovery().failed(error(Fault.LOST), 600.0, others=False).next is Next.GIVE_UP


def test_the_deadline_begins_anew_when_something_came() -> None:
    one = recovery()
    assert one.failed(error(Fault.LOST), 601.0, others=False).next is Next.GIVE_UP
    one = recovery()
    one.progressed(590.0)
    assert one.failed(error(Fault.LOST), 1100.0, others=False).next is Next.AGAIN


def test_refused_is_refused() -> None:
    one = recovery()
    one.progressed(0.0)
    assert one.failed(error(Fault.REFUSED), 0.0, others=True).next is Next.GIVE_UP


def test_a_new_key_is_fetched_once_at_once() -> None:
    one = recovery()
    assert one.failed(error(Fault.STALE_KEY), 0.0, others=True).next is Next.REFRESH
    assert one.failed(error(Fault.STALE_KEY), 0.0, others=False).next is Next.AGAIN
    one.progressed(1.0)
    assert one.failed(error(Fault.STALE_KEY), 1.0, others=False).next is Next.REFRESH


def test_damage_again_and_again_is_somebodys_doing() -> None:
    one = recovery()
    steps = [one.failed(error(Fault.DAMAGED), 0.0, others=False).next for _ in range(MAX_DAMAGED)]
    assert steps == [Next.AGAIN] * (MAX_DAMAGED - 1) + [Next.GIVE_UP]
    one = recovery()
    for _ in range(5):
        assert one.failed(error(Fault.DAMAGED), 0.0, others=False).next is Next.AGAIN
        one.progressed(0.0)


def test_pauses_are_short_at_first_and_long_later() -> None:
    one = recovery()
    one.progressed(0.0)
    early = [one.failed(error(Fault.LOST), 1.0, others=False).pause for _ in range(10)]
    assert early[0] == 0.1
    assert max(early) == 1.0
    assert one.failed(error(Fault.LOST), EAGER + 1, others=False).pause == CALM


def test_a_servers_wish_is_followed_while_nothing_runs() -> None:
    assert recovery().failed(error(Fault.NOT_TAKEN, 4.0), 0.0, others=False).pause == 4.0
    assert recovery().failed(error(Fault.NOT_TAKEN, 400.0), 0.0, others=False).next is Next.GIVE_UP
    running = recovery()
    running.progressed(0.0)
    assert running.failed(error(Fault.NOT_TAKEN, 30.0), 0.0, others=False).pause <= 1.0


@given(st.lists(st.tuples(st.sampled_from(Fault), st.floats(0, 30), st.booleans(), st.booleans()), max_size=40))
@settings(max_examples=200)
def test_it_never_moves_what_may_run_and_always_ends(story: list[tuple[Fault, float, bool, bool]]) -> None:
    one, now, possible = recovery(), 0.0, False
    for fault, passed, others, progress in story:
        now += passed
        if progress:
            one.progressed(now)
            possible = True
        step = one.failed(error(fault), now, others=others)
        possible = possible or fault in (Fault.LOST, Fault.DAMAGED)
        assert not (possible and step.next is Next.ELSEWHERE)
        assert 0 <= step.pause <= max(30.0, CALM)
    assert one.failed(error(Fault.LOST), now + 601, others=False).next is Next.GIVE_UP
