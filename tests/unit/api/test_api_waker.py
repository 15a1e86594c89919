from collections.abc import Mapping

from tests.support.api_memory import FailingState
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.bus import CONTROL, LocalBus
from cloudtolocalllm.api.waker import INTERVAL, MAX_REMEMBERED, SHARE_INTERVAL, WAITING, Waker

B1, B2 = ("b1", 1.0), ("b2", 2.0)


class Told(LocalBus):
    def __init__(self) -> None:
        super().__init__()
        self.wakes: list[tuple[str, str]] = []

    def publish(self, topic: str, message: Mapping[str, str]) -> None:
        if topic == CONTROL:
            assert message["do"] == "wake"
            self.wakes.append((message["bridge"], message["instance"]))


class Case:
    def __init__(self, state: FailingState, clock: FakeClock) -> None:
        self.clock = clock
        self.bus = Told()
        self.waker = Waker(self.bus, state, clock)

    def taken(self) -> list[tuple[str, str]]:
        wakes, self.bus.wakes = self.bus.wakes, []
        return wakes


async def test_a_bridge_is_woken_once_an_interval(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    for _ in range(100):
        await case.waker.wake("u", "px-1", (B1,))
    assert case.taken() == [("b1", "px-1")]
    case.clock.advance(INTERVAL)
    await case.waker.wake("u", "px-1", (B1,))
    assert case.taken() == [("b1", "px-1")]


async def test_a_new_proxy_wakes_at_once(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    await case.waker.wake("u", "px-1", (B1,))
    await case.waker.wake("u", "px-2", (B1,))
    assert case.taken() == [("b1", "px-1"), ("b1", "px-2")]


async def test_a_bridge_that_came_or_came_back_is_woken_at_once(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    await case.waker.wake("u", "px-1", (B1,))
    await case.waker.wake("u", "px-1", (B1, B2))
    await case.waker.wake("u", "px-1", (("b1", 3.0), B2))
    assert case.taken() == [("b1", "px-1"), ("b2", "px-1"), ("b1", "px-1")]


async def test_fresh_wakes_whatever_was_done(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    await case.waker.wake("u", "px-1", (B1,))
    await case.waker.wake("u", "px-1", (B1,), fresh=True)
    assert len(case.taken()) == 2


async def test_users_do_not_share(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    await case.waker.wake("u", "px-1", (B1,))
    await case.waker.wake("v", "px-2", (B2,))
    case.waker.connected("v", "b9", 9.0)
    assert case.taken() == [("b1", "px-1"), ("b2", "px-2"), ("b9", "px-2")]


async def test_a_bridge_that_connects_while_a_request_waits_is_woken(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    case.waker.connected("u", "b1", 1.0)
    assert case.taken() == []
    await case.waker.wake("u", "px-1", ())
    case.clock.advance(WAITING - 1)
    case.waker.connected("u", "b1", 2.0)
    assert case.taken() == [("b1", "px-1")]
    case.clock.advance(1)
    case.waker.connected("u", "b1", 3.0)
    assert case.taken() == []


async def test_memory_is_bounded(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    for n in range(MAX_REMEMBERED + 10):
        await case.waker.wake(f"u{n}", "px", ())
    assert len(case.waker._wanted) == MAX_REMEMBERED
    for n in range(1000):
        case.clock.advance(INTERVAL)
        await case.waker.wake("u", "px", (("b", float(n)),))
    assert len(case.waker._wanted["u"].woken) <= 2


async def test_a_bridge_that_connects_here_is_woken_for_a_request_that_came_by_another_replica(
    state: FailingState, clock: FakeClock
) -> None:
    here, there = Case(state, clock), Case(state, clock)
    await here.waker.joined("u", "b1", 1.0)
    assert here.taken() == []
    await there.waker.wake("u", "px-1", ())
    here.waker.connected("u", "b1", 2.0)
    await here.waker.joined("u", "b1", 2.0)
    assert here.taken() == [("b1", "px-1")]
    await here.waker.joined("v", "b2", 2.0)
    assert here.taken() == [], "nobody else's bridge"
    clock.advance(WAITING)
    await here.waker.joined("u", "b1", 3.0)
    assert here.taken() == [], "nobody waits any more"


async def test_a_bridge_is_woken_once_though_both_replicas_were_asked(state: FailingState, clock: FakeClock) -> None:
    here, there = Case(state, clock), Case(state, clock)
    await here.waker.wake("u", "px-1", ())
    await there.waker.wake("u", "px-1", ())
    here.waker.connected("u", "b1", 2.0)
    await here.waker.joined("u", "b1", 2.0)
    assert here.taken() == [("b1", "px-1")]


async def test_a_request_of_long_ago_here_does_not_hide_a_new_one_there(
    state: FailingState, clock: FakeClock
) -> None:
    here, there = Case(state, clock), Case(state, clock)
    await here.waker.wake("u", "px-1", (B1,))
    here.taken()
    clock.advance(WAITING + 1)
    await there.waker.wake("u", "px-1", ())
    here.waker.connected("u", "b1", 2.0)
    await here.waker.joined("u", "b1", 2.0)
    assert here.taken() == [("b1", "px-1")]


async def test_other_replicas_are_told_of_a_busy_user_now_and_then_and_of_a_new_proxy_at_once(
    state: FailingState, clock: FakeClock
) -> None:
    case = Case(state, clock)
    for _ in range(100):
        await case.waker.wake("u", "px-1", (B1,))
    assert state.asked == ["put"]
    await case.waker.wake("u", "px-2", (B1,))
    assert state.asked == ["put"] * 2
    assert await state.get("wanted/u") == b"px-2"
    clock.advance(SHARE_INTERVAL)
    await case.waker.wake("u", "px-2", (B1,))
    assert state.asked == ["put", "put", "get", "put"]


async def test_without_the_state_this_replicas_bridges_are_woken(state: FailingState, clock: FakeClock) -> None:
    case = Case(state, clock)
    state.fails = True
    await case.waker.wake("u", "px-1", (B1,))
    case.waker.connected("u", "b2", 2.0)
    await case.waker.joined("u", "b2", 2.0)
    assert case.taken() == [("b1", "px-1"), ("b2", "px-1")]
