"""Buckets: what fits, what waiting is worth, and that no flood gives anything back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.edge import limits
from cloudtolocalllm.edge.limits import Kind, Limited, Limits, Rate, kind_of
from cloudtolocalllm.edge.routes import Route
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.settings import SettingsError, load

RATE = Rate(30, "min", 20)


class Bucket:
    """Limits of one kind under a clock of the test's."""

    def __init__(self, rate: Rate = RATE) -> None:
        self.now = 1000.0
        self.limits = Limits({Kind.API: rate}, lambda: self.now)

    def take(self, client: str = "a") -> Limited | None:
        return self.limits.take(client, Kind.API)

    def served(self, count: int, client: str = "a") -> int:
        return sum(self.take(client) is None for _ in range(count))


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket()
    assert bucket.served(50) == 20
    bucket.now += 1.9
    assert bucket.served(5) == 0
    bucket.now += 0.2
    assert bucket.served(5) == 1
    bucket.now += 3600
    assert bucket.served(50) == 20  # nothing is saved up beyond the burst


def test_what_is_told() -> None:
    bucket = Bucket()
    bucket.served(20)
    limited = bucket.take()
    assert limited is not None
    assert (limited.kind, limited.rate) == (Kind.API, RATE)
    assert limited.wait == pytest.approx(2.0)
    fields = dict(limited.fields)
    assert fields[b"retry-after"] == b"2"
    assert fields[b"ratelimit-policy"] == b'"api";q=30;w=60'
    assert fields[b"ratelimit"] == b'"api";r=0;t=2'


@given(
    st.integers(1, 50),
    st.sampled_from(["s", "min", "h"]),
    st.integers(1, 30),
    st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=120),
)
@settings(max_examples=60, deadline=None)
def test_in_any_window_no_more_than_burst_and_rate(count: int, unit: str, burst: int, pauses: list[float]) -> None:
    rate = Rate(count, unit, burst)
    bucket = Bucket(rate)
    served: list[float] = []
    for pause in pauses:
        bucket.now += pause
        limited = bucket.take()
        if limited is None:
            served.append(bucket.now)
        else:
            assert limited.wait > 0
            bucket.now += limited.wait + 1e-6  # waiting as told is enough
            assert bucket.take() is None
            served.append(bucket.now)
    for first, start in enumerate(served):
        for last in range(first, len(served)):
            allowed = burst + (served[last] - start) * count / rate.window
            assert last - first + 1 <= allowed + 0.01


def test_clients_and_kinds_do_not_share() -> None:
    bucket = Bucket()
    assert (bucket.served(30, "a"), bucket.served(30, "b")) == (20, 20)
    assert bucket.limits.take("a", Kind.DATA) is None  # no rate, no limit


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 90)), max_size=200))
@settings(max_examples=60, deadline=None)
def test_forgetting_changes_nothing(steps: list[tuple[str, float]]) -> None:
    """A table that forgets serves exactly what one that never forgets would."""
    bucket = Bucket()
    full_at: dict[str, float] = {}
    interval = 2.0
    for client, pause in steps:
        bucket.now += pause
        start = max(bucket.now, full_at.get(client, 0.0))
        expected = start - bucket.now <= interval * 19
        if expected:
            full_at[client] = start + interval
        assert (bucket.take(client) is None) is expected


def test_an_empty_bucket_is_not_forgotten_at_a_turn() -> None:
    bucket = Bucket()
    bucket.take("other")  # the table's turns come every 40 s from now
    bucket.now += 39
    assert bucket.served(30) == 20
    bucket.now += 2
    assert bucket.served(30) == 1
    bucket.now += 39
    assert bucket.served(30) == 19


def test_idle_clients_are_forgotten() -> None:
    bucket = Bucket()
    for number in range(1000):
        bucket.take(f"client {number}")
    (table,) = bucket.limits._tables.values()
    assert len(table) == 1000
    for _ in range(2):
        bucket.now += 41
        bucket.take("other")
    assert len(table) <= 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_flood_of_addresses_resets_nobody(monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
    monkeypatch.setattr(limits, "MAX_CLIENTS", 100)
    bucket = Bucket()
    assert bucket.served(30, "abuser") == 20
    for number in range(5000):
        bucket.take(f"flood {number}")
        if not at_once and number % 500 == 0:
            bucket.now += 3.9  # ten of these are the life of a bucket
            assert bucket.served(5, "abuser") <= 2
    (table,) = bucket.limits._tables.values()
    assert len(table) <= 100
    assert len(table._told) <= 100
    assert bucket.served(30, "abuser") <= 2


def test_newcomers_share_while_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLIENTS", 10)
    monkeypatch.setattr(limits, "SHARED", 1)
    bucket = Bucket()
    for number in range(10):
        bucket.take(f"first {number}")
    assert bucket.served(15, "x") + bucket.served(15, "y") == 20
    bucket.now += 100
    assert bucket.served(30, "z") == 20  # there is room again


def test_a_watch_hears_of_a_client_once_in_a_while() -> None:
    bucket = Bucket()
    bucket.served(20)
    refused = [limited for limited in (bucket.take() for _ in range(10)) if limited is not None]
    assert [limited.first for limited in refused] == [True] + [False] * 9


@pytest.mark.parametrize(
    ("text", "rate"), [("30/min burst 20", RATE), ("1/h burst 1", Rate(1, "h", 1)), ("off", None)]
)
def test_rates(text: str, rate: Rate | None) -> None:
    assert Rate.parse(text) == rate
    assert rate is None or str(rate) == text


@pytest.mark.parametrize("text", ["", "30", "30/min", "0/s burst 1", "1/s burst 0", "1/d burst 1", "-1/s burst 1"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        Rate.parse(text)


def test_the_defaults_are_strict_where_it_counts() -> None:
    made = load(EdgeSettings, "C2L_EDGE_", {"C2L_EDGE_API": "unix:/a"})
    assert made.limit_sign_in == RATE
    assert made.limit_connections > 0
    assert not made.limit_loopback
    assert made.trusted_proxies == made.cors_origins == ()


def test_faulty_settings_are_all_told() -> None:
    environ = {
        "C2L_EDGE_API": "unix:/a",
        "C2L_EDGE_LIMIT_API": "many",
        "C2L_EDGE_TRUSTED_PROXIES": "10.0.0.1/8",
        "C2L_EDGE_CORS_ORIGINS": "*",
    }
    with pytest.raises(SettingsError) as caught:
        load(EdgeSettings, "C2L_EDGE_", environ)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("where", Route)
def test_every_route_has_a_kind(where: Route) -> None:
    assert isinstance(kind_of(where, "/"), Kind)
