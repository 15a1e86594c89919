"""A few rounds of the fuzz harness, so that it keeps working; its docstring says how to run more."""

import random
from contextlib import suppress

import pytest
from tests.fuzz.fuzz_tunnel import garbage, lossy, mutated

from cloudtolocalllm.tunnel import RemoteError


@pytest.mark.parametrize("seed", range(50))
def test_hostile_rounds_end_in_remote_errors_only(seed: int) -> None:
    with suppress(RemoteError):
        garbage(random.Random(seed))
    with suppress(RemoteError):
        mutated(random.Random(seed))


@pytest.mark.parametrize("seed", range(20))
def test_an_honest_peer_is_never_refused(seed: int) -> None:
    lossy(random.Random(seed))
