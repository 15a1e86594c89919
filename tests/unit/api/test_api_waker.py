from collections.abc import Mapping

from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.bus import CONTROL, LocalBus
from cloudtolocalllm.api.waker import INTERVAL, MAX_REMEMBERED, WAITING, Waker

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
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bus = Told()
        self.waker = Waker(self.bus, self.clock)

    def taken(self) -> list[tuple[str, str]]:
        wakes, self.bus.wakes = self.bus.wakes, []
        return wakes


def test_a_bridge_is_woken_once_an_interval() -> None:
    case = Case()
    for _ in range(100):
        case.waker.wake("u", "px-1", (B1,))
    assert case.taken() == [("b1", "px-1")]
    case.clock.advance(INTERVAL)
    case.waker.wake("u", "px-1", (B1,))
    assert case.taken() == [("b1", "px-1")]


def test_a_new_proxy_wakes_at_once() -> None:
    case = Case()
    case.waker.wake("u", "px-1", (B1,))
    case.waker.wake("u", "px-2", (B1,))
    assert case.taken() == [("b1", "px-1"), ("b1", "px-2")]


def test_a_bridge_that_came_or_came_back_is_woken_at_once() -> None:
    case = Case()
    case.waker.wake("u", "px-1", (B1,))
    case.waker.wake("u", "px-1", (B1, B2))
    case.waker.wake("u", "px-1", (("b1", 3.0), B2))
    assert case.taken() == [("b1", "px-1"), ("b2", "px-1"), ("b1", "px-1")]


def test_fresh_wakes_whatever_was_done() -> None:
    case = Case()
    case.waker.wake("u", "px-1", (B1,))
    case.waker.wake("u", "px-1", (B1,), fresh=True)
    assert len(case.taken()) == 2


def test_users_do_not_share() -> None:
    case = Case()
    case.waker.wake("u", "px-1", (B1,))
    case.waker.wake("v", "px-2", (B2,))
    case.waker.connected("v", "b9", 9.0)
    assert case.taken() == [("b1", "px-1"), ("b2", "px-2"), ("b9", "px-2")]


def test_a_bridge_that_connects_while_a_request_waits_is_woken() -> None:
    case = Case()
    case.waker.connected("u", "b1", 1.0)
    assert case.taken() == []
    case.waker.wake("u", "px-1", ())
    case.clock.advance(WAITING - 1)
    case.waker.connected("u", "b1", 2.0)
    assert case.taken() == [("b1", "px-1")]
    case.clock.advance(1)
    case.waker.connected("u", "b1", 3.0)
    assert case.taken() == []


def test_memory_is_bounded() -> None:
    case = Case()
    for n in range(MAX_REMEMBERED + 10):
        case.waker.wake(f"u{n}", "px", ())
    assert len(case.waker._wanted) == MAX_REMEMBERED
    for n in range(1000):
        case.clock.advance(INTERVAL)
        case.waker.wake("u", "px", (("b", float(n)),))
    assert len(case.waker._wanted["u"].woken) <= 2
