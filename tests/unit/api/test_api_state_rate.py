from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.api.state.rate import SLACK, Level, answer, fill

START = 1_800_000_000.0


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 50),
    window=st.floats(0.1, 86_400),
    steps=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 3)), max_size=60),
)
def test_no_stretch_of_time_lets_in_more_than_the_limit_and_its_share(
    limit: int, window: float, steps: list[tuple[float, int]]
) -> None:
    level: Level | None = None
    now = START
    let_in: list[tuple[float, int]] = []
    for pause, cost in steps:
        now += pause * window / limit * 2
        allowed, level = fill(level, now, limit=limit, window=window, cost=cost)
        if allowed:
            let_in.append((now, cost))
    for i, (first, _) in enumerate(let_in):
        for j in range(i, len(let_in)):
            total = sum(cost for _, cost in let_in[i : j + 1])
            assert total <= limit + (let_in[j][0] - first) * limit / window + 1e-3


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 1_000_000),
    window=st.floats(0.01, 400 * 86_400),
    filled=st.floats(0, 1),
    cost=st.integers(0, 1_100_000),
)
def test_who_waits_as_long_as_it_said_is_let_in_and_not_much_sooner(
    limit: int, window: float, filled: float, cost: int
) -> None:
    before = Level(filled * limit, START)
    allowed, level = fill(before, START, limit=limit, window=window, cost=cost)
    hit = answer(allowed=allowed, used=level.used, limit=limit, window=window, cost=cost)
    assert hit.allowed == allowed
    assert 0 <= hit.remaining <= limit
    assert allowed or hit.retry_after > 0
    assert 0 <= hit.retry_after <= window * (1 + SLACK) + 0.003
    if hit.retry_after and cost <= limit:
        cost = cost if not allowed else 1
        later, _ = fill(level, START + hit.retry_after, limit=limit, window=window, cost=cost)
        assert later
        sooner = hit.retry_after - max(0.004, window / limit * 0.01)
        if sooner > 0:
            early, _ = fill(level, START + sooner, limit=limit, window=window, cost=cost)
            assert not early
