"""A clock that the test moves, and a state that can be made to fail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api_memory import FailingState
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.state.sqlite import SqliteState


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def state(tmp_path: Path, clock: FakeClock) -> AsyncIterator[FailingState]:
    made = FailingState(SqliteState(tmp_path / "state.db", clock=clock))
    yield made
    await made.close()
