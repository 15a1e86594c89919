"""Whoever sees sizes and times of a sealed answer only, does not learn from them what it is about.

The observer is the one of `tests.support.observer`. On what is not padded it is right nearly always: so it would be
here as well, if padding did not hold. What it does not learn, another one may: a test shows no more than that.
"""

import random
from functools import partial

import pytest
from tests.support.observer import PAIRS, SHAPES, Guesses, Said, Trace, observe, plain, poisson, said, sealed

from cloudtolocalllm.sealed.padding import DEFAULT_POLICY, NO_PADDING, PaddingPolicy

RATES = (5.0, 30.0, 100.0)
BY_CHANCE = 3.5
"""Standard deviations from a coin's half: of 2,000 figures one by chance is further off. The seeds are fixed."""
UNPADDED = PaddingPolicy(multiple=1, floor=0, ceiling=0, headroom=1.0, stream_size=0)
"""Joined only."""
GROWING = PaddingPolicy(floor=512, stream_size=0)
"""As answers that are no streams are padded: each to the size that it has needed so far."""


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("family", SHAPES)
def test_on_plain_streams_the_observer_tells_what_they_are_about(family: str, pair: str) -> None:
    found = observe(family, pair, 30.0, plain, count=30)
    assert max(each.share for each in found.values()) >= 0.95


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("policy", [NO_PADDING, UNPADDED], ids=["nothing", "joined only"])
def test_so_it_does_where_only_the_padding_is_missing(pair: str, policy: PaddingPolicy) -> None:
    found = observe("Ollama", pair, 30.0, partial(sealed, policy=policy), count=50)
    assert max(each.sigmas for each in found.values()) > BY_CHANCE


def test_sizes_that_grow_by_need_are_not_enough() -> None:
    """Why streams have a size of their own."""
    found = observe("Ollama", "two topics", 30.0, partial(sealed, policy=GROWING), count=60)
    assert max(each.sigmas for each in found.values()) > BY_CHANCE


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("per_second", RATES)
@pytest.mark.parametrize("family", SHAPES)
def test_on_sealed_streams_it_does_no_better_than_a_coin(family: str, per_second: float, pair: str) -> None:
    found = observe(family, pair, per_second, sealed, count=60)
    assert {name: each for name, each in found.items() if abs(each.sigmas) > BY_CHANCE} == {}


def test_what_the_observer_is_not_to_tell_it_can_count() -> None:
    """An engine's speed shows: by the number of chunks alone."""
    chance = random.Random("speeds")

    def answer(per_second: float) -> Trace:
        return sealed(said("Ollama", poisson(per_second, 120, chance), PAIRS["two topics"][0], chance))

    slow, fast = answer(5.0), answer(60.0)
    sizes = {size for trace in (slow, fast) for _, size in trace}
    assert max(sizes) - min(sizes) <= 2 + 16 + 16  # a chunk's length, its tag, and the answer's nonce
    assert len(fast) < len(slow) / 2


def test_more_than_a_stream_s_size_takes_its_double() -> None:
    answer = Said(b"text/event-stream; charset=utf-8", [(0.0, b"x" * 10), (0.11, b"x" * 5000), (0.32, b"x")])
    sizes = [size for _, size in sealed(answer)]
    assert [round(size / DEFAULT_POLICY.stream_size) for size in sizes] == [1, 1, 2, 1]


def test_a_coin_s_luck_is_told_from_knowledge() -> None:
    assert Guesses(50, 100).sigmas == 0
    assert Guesses(68, 100).sigmas > BY_CHANCE
    assert Guesses(68, 100).share == 0.68
