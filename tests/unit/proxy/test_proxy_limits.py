import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.auth.assertion import CLIENT, KEY, SESSION, Assertion, Limits
from cloudtolocalllm.proxy.limits import MAX_KEYS, WINDOW, Limiter, Meter, Refusal
from cloudtolocalllm.proxy.stats import Stats


def claims(
    streams: int = 0, requests: int = 0, content: int = 0, *, per_key: int = 0, key: str = "key-1"
) -> Assertion:
    return Assertion(
        "px-0123456789abcdef",
        "u_a",
        CLIENT,
        key,
        0,
        60,
        via=KEY if per_key else SESSION,
        key_requests_per_minute=per_key,
        limits=Limits(streams, requests, content),
    )


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stats = Stats(self.clock)
        self.limiter = Limiter(self.stats, self.clock)

    def take(self, said: Assertion, *, stop: bool = False) -> Refusal | None:
        """As the proxy does: what is taken is under way."""
        refusal = self.limiter.take(said, stop=stop)
        if refusal is None:
            self.stats.begin()
        return refusal

    def end(self, said: Assertion) -> None:
        self.stats.end()
        self.limiter.ended(said)

    def fields(self, said: Assertion) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.limiter.fields(said)}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 1200, 99_991])
def test_of_five_times_as_many_at_once_exactly_the_limit_comes_in(limit: int) -> None:
    rig, said = Rig(), claims(requests=limit)
    taken = [rig.limiter.take(said) for _ in range(min(5 * limit, limit + 1000))]
    assert taken.count(None) == limit
    assert all(refusal is None for refusal in taken[:limit])


def test_after_the_time_that_a_refusal_names_one_more_comes_in_and_no_two() -> None:
    rig, said = Rig(), claims(requests=4)
    for _ in range(4):
        assert rig.limiter.take(said) is None
    refusal = rig.limiter.take(said)
    assert refusal is not None
    assert (refusal.policy, refusal.retry_after) == ("requests", 15)
    rig.clock.advance(14.9)
    assert rig.limiter.take(said) is not None
    rig.clock.advance(0.1)
    assert rig.limiter.take(said) is None
    assert rig.limiter.take(said) is not None


@settings(max_examples=60)
@given(st.integers(1, 50), st.lists(st.floats(0, 40), min_size=1, max_size=60))
def test_no_window_has_more_than_twice_the_limit_and_none_less_than_it_allows(
    limit: int, pauses: list[float]
) -> None:
    rig, said = Rig(), claims(requests=limit)
    came: list[float] = []
    for pause in pauses:
        rig.clock.advance(pause)
        came += [rig.clock.now for _ in range(3) if rig.limiter.take(said) is None]
    for begin in came:
        inside = sum(begin <= at <= begin + WINDOW for at in came)
        assert inside <= 2 * limit
    # On the whole: what may come at once, and the rate times the time.
    elapsed = rig.clock.now - came[0]
    assert len(came) <= limit + elapsed * limit / WINDOW + 1


def test_a_refused_request_counts_nowhere() -> None:
    rig, said = Rig(), claims(requests=10, per_key=2)
    for _ in range(2):
        assert rig.limiter.take(said) is None
    for _ in range(50):
        refusal = rig.limiter.take(said)
        assert refusal is not None
        assert refusal.policy == "key-requests"
    page = claims(requests=10)
    assert [rig.limiter.take(page) for _ in range(9)].count(None) == 8, "the user's other requests"


def test_each_key_has_its_own_rate_and_the_user_one_above_them() -> None:
    rig = Rig()
    keys = [claims(requests=5, per_key=2, key=f"key-{number}") for number in range(3)]
    taken = [[rig.limiter.take(key) for _ in range(3)] for key in keys]
    assert [answers.count(None) for answers in taken] == [2, 2, 1]


def test_streams_are_those_under_way() -> None:
    rig, said = Rig(), claims(streams=3)
    taken = [rig.take(said) for _ in range(15)]
    assert taken.count(None) == 3
    refusal = taken[-1]
    assert refusal is not None
    assert (refusal.policy, refusal.retry_after) == ("streams", 1)
    rig.end(said)
    assert rig.take(said) is None
    assert rig.take(said) is not None


def test_content_of_both_ways_counts_and_flows_off() -> None:
    rig, said = Rig(), claims(content=6000)
    assert rig.take(said) is None
    rig.stats.bytes_up += 1000
    rig.stats.bytes_down += 5000
    assert rig.take(said) is not None, "while it still runs"
    rig.end(said)
    refusal = rig.take(said)
    assert refusal is not None
    assert (refusal.policy, refusal.retry_after) == ("bytes", 1)
    rig.clock.advance(30)
    assert rig.take(said) is None
    assert rig.fields(said)["ratelimit"] == '"bytes";r=3000;t=1'


def test_an_answer_above_the_limit_is_paid_for_later() -> None:
    rig, said = Rig(), claims(content=6000)
    assert rig.take(said) is None
    rig.stats.bytes_down += 18_000
    rig.end(said)
    refusal = rig.take(said)
    assert refusal is not None
    assert refusal.retry_after == 121, "two minutes' worth too much, and a byte"
    rig.clock.advance(121)
    assert rig.take(said) is None


def test_a_long_answer_counts_with_the_rate_at_which_it_came() -> None:
    rig, said = Rig(), claims(content=6000)
    assert rig.take(said) is None
    rig.clock.advance(600)
    rig.stats.bytes_down += 54_000  # 90 a second, of 100 allowed
    rig.end(said)
    assert rig.take(said) is None


def test_to_stop_an_exchange_only_the_users_requests_are_a_limit() -> None:
    rig, said = Rig(), claims(streams=1, requests=3, content=100, per_key=1)
    assert rig.take(said) is None
    rig.stats.bytes_down += 1000
    assert rig.take(said) is not None
    assert rig.take(said, stop=True) is None
    assert rig.take(said, stop=True) is None
    refusal = rig.take(said, stop=True)
    assert refusal is not None
    assert refusal.policy == "requests"


def test_without_limits_nothing_is_refused_and_nothing_said() -> None:
    rig, said = Rig(), claims()
    rig.stats.bytes_down = 10**15
    assert all(rig.take(said) is None for _ in range(2000))
    assert rig.fields(said) == {}


def test_keys_are_remembered_up_to_a_bound() -> None:
    rig = Rig()
    first = claims(per_key=1, key="first")
    assert rig.limiter.take(first) is None
    for number in range(MAX_KEYS):
        assert rig.limiter.take(first) is not None, "seen again and again"
        assert rig.limiter.take(claims(per_key=1, key=f"key-{number}")) is None
    assert len(rig.limiter._keys) == MAX_KEYS


def test_the_fields_have_the_form_of_the_draft() -> None:
    rig, said = Rig(), claims(64, 1200, 2 * 1024**3, per_key=30)
    assert rig.take(said) is None
    fields = rig.fields(said)
    assert fields["ratelimit-policy"] == (
        '"streams";q=64;qu="concurrent-requests", "requests";q=1200;w=60, '
        '"bytes";q=2147483648;w=60;qu="content-bytes", "key-requests";q=30;w=60'
    )
    assert fields["ratelimit"] == (
        '"streams";r=63, "requests";r=1199;t=1, "bytes";r=2147483648, "key-requests";r=29;t=2'
    )


@settings(max_examples=300)
@example((0, 0, 1, 0), 0, 1, 1.0)
@given(
    st.tuples(*[st.integers(0, 10**17) | st.integers(0, 3)] * 4),
    st.integers(0, 20),
    st.integers(0, 10**16),
    st.floats(0, 100),
)
def test_the_fields_always_parse_and_never_promise_too_much(
    limits: tuple[int, ...], requests: int, content: int, pause: float
) -> None:
    rig = Rig()
    said = claims(*limits[:3], per_key=limits[3])
    for _ in range(requests):
        rig.take(said)
    rig.stats.bytes_down += content
    rig.clock.advance(pause)
    rig.limiter.ended(said)
    fields = rig.fields(said)
    if not any(limits):
        assert fields == {}
        return
    item = r'"[a-z-]+"(;[a-z]+=([0-9]{1,15}|"[a-z-]+"))+'
    for name in ("ratelimit", "ratelimit-policy"):
        assert re.fullmatch(rf"{item}(, {item})*", fields[name]), fields[name]
    quotas = dict(re.findall(r'"([a-z-]+)";q=([0-9]+)', fields["ratelimit-policy"]))
    left = dict(re.findall(r'"([a-z-]+)";r=([0-9]+)', fields["ratelimit"]))
    assert quotas.keys() == left.keys()
    assert all(int(left[name]) <= int(quotas[name]) for name in left)
    refusal = rig.limiter.take(said)
    if refusal is None:
        assert all(int(value) > 0 for value in left.values())
    else:
        assert int(left[refusal.policy]) == 0


def test_a_meter_never_owes() -> None:
    meter = Meter(0.0)
    meter.add(5)
    assert meter.used(60, 1000.0) == 0.0
    meter.add(60)
    assert meter.used(60, 1000.0) == 60.0
