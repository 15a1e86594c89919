import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtolocalllm.runtime.backoff import Backoff


class Upper(random.Random):
    """Always draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_bounds_double_up_to_the_maximum_and_start_over() -> None:
    backoff = Backoff(first=1, factor=2, maximum=5, rng=Upper())
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_delays_stay_within_bounds_however_often(seed: int, count: int) -> None:
    backoff = Backoff(rng=random.Random(seed))
    assert all(0 <= backoff.next() <= 15 for _ in range(count))


def test_full_jitter_spreads_from_zero() -> None:
    delays = [Backoff(first=1, rng=random.Random(seed)).next() for seed in range(1000)]
    assert min(delays) < 0.05
    assert max(delays) > 0.95
    assert sum(delays) / 1000 == pytest.approx(0.5, abs=0.05)
