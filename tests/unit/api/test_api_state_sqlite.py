import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.state import StateError, StateUnavailableError, sqlite
from cloudtolocalllm.api.state.sqlite import SWEEP, SWEEP_WITH_WRITE, VERSION, SqliteState

DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cloud" / "state.db"


@pytest.fixture
async def state(path: Path, clock: FakeClock) -> AsyncIterator[SqliteState]:
    state = SqliteState(path, clock=clock)
    yield state
    await state.close()


def files(path: Path) -> bytes:
    """Return what is in the file and those beside it."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def rows(path: Path, table: str) -> int:
    other = sqlite3.connect(path)
    try:
        return int(other.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        other.close()


async def test_a_value_lives_up_to_its_time_and_no_longer(state: SqliteState, clock: FakeClock) -> None:
    await state.put("a", b"1", 60)
    await state.add("g", "m", b"1", 60)
    clock.advance(59.999)
    assert await state.get("a") == b"1"
    assert await state.members("g") == [{"m": b"1"}]
    clock.advance(0.001)
    assert await state.get("a") is None
    assert await state.members("g") == [{}]
    assert not await state.replace("a", b"1", b"2", 60)
    assert await state.take("a") is None
    assert await state.remove("g", "m") is None


@pytest.mark.parametrize("operation", ["take", "delete", "replace", "remove", "only_new", "add"])
async def test_what_expired_this_moment_is_not_there_for_a_write(
    state: SqliteState, clock: FakeClock, operation: str
) -> None:
    await state.put("a", b"old", 0.5)
    await state.add("g", "m", b"old", 0.5)
    clock.advance(0.5)  # the write below comes within SWEEP_INTERVAL, so it finds the row in the table
    if operation == "take":
        assert await state.take("a") is None
    elif operation == "delete":
        assert not await state.delete("a")
    elif operation == "replace":
        assert not await state.replace("a", b"old", b"new", 60)
        assert await state.get("a") is None
    elif operation == "remove":
        assert await state.remove("g", "m") is None
    elif operation == "only_new":
        assert await state.put("a", b"new", 60, only_new=True)
        assert await state.get("a") == b"new"
    else:
        assert await state.add("g", "other", b"", 60, limit=1)
        assert not await state.add("g", "m", b"", 60, limit=1)


async def test_a_rate_refills_at_an_even_pace(state: SqliteState, clock: FakeClock) -> None:
    for remaining in (4, 3, 2, 1, 0):
        hit = await state.hit("k", limit=5, window=60)
        assert (hit.allowed, hit.remaining) == (True, remaining)
    assert hit.retry_after == pytest.approx(12, abs=0.003)
    for _ in range(20):
        refused = await state.hit("k", limit=5, window=60)
        assert not refused.allowed
        clock.advance(refused.retry_after - 0.01)
        assert not (await state.hit("k", limit=5, window=60)).allowed
        clock.advance(0.01)
        assert (await state.hit("k", limit=5, window=60)).allowed
    clock.advance(36.01)
    assert (await state.hit("k", limit=5, window=60, cost=0)).remaining == 3
    clock.advance(1000)
    assert (await state.hit("k", limit=5, window=60, cost=0)).remaining == 5


async def test_a_rate_is_forgotten_once_it_has_leaked_away(state: SqliteState, clock: FakeClock, path: Path) -> None:
    await state.hit("k", limit=10, window=100, cost=3)
    clock.advance(29)
    assert await state.sweep() == 0
    clock.advance(1.1)
    assert await state.sweep() == 1
    assert rows(path, "rates") == 0


async def test_a_clock_that_is_set_back_lets_in_nothing_more(state: SqliteState, clock: FakeClock) -> None:
    assert (await state.hit("k", limit=1, window=60)).allowed
    clock.advance(-3600)
    refused = await state.hit("k", limit=1, window=60)
    assert not refused.allowed
    assert refused.retry_after < 61
    clock.advance(3600)
    assert not (await state.hit("k", limit=1, window=60)).allowed


async def test_writes_erase_what_has_expired_a_little_at_a_time(
    state: SqliteState, clock: FakeClock, path: Path
) -> None:
    count = 2 * SWEEP_WITH_WRITE + 5
    for n in range(count):
        await state.put(f"k{n}", b"1", 10)
        await state.add("g", f"m{n}", b"1", 10)
    clock.advance(11)
    for left in (count - SWEEP_WITH_WRITE, count - 2 * SWEEP_WITH_WRITE, 0):
        await state.put("new", b"1", 60)
        await state.put("new", b"1", 60)  # within SWEEP_INTERVAL, so it erases nothing
        assert rows(path, "entries") == left + 1
        assert rows(path, "members") == left
        clock.advance(1)


async def test_a_clock_that_is_set_back_does_not_end_the_erasing(
    state: SqliteState, clock: FakeClock, path: Path
) -> None:
    await state.put("a", b"1", 60)
    clock.advance(-30 * DAY)
    await state.put("b", b"1", 10)
    clock.advance(10)
    await state.put("c", b"1", 10)
    assert rows(path, "entries") == 2


async def test_a_sweep_erases_a_bounded_number(state: SqliteState, clock: FakeClock) -> None:
    for n in range(SWEEP + 5):
        await state.put(f"k{n}", b"1", 10)
    await state.put("stays", b"1", 60)
    clock.advance(20)
    assert await state.sweep() == SWEEP
    assert await state.sweep() == 5
    assert await state.sweep() == 0
    assert await state.get("stays") == b"1"


async def test_nothing_that_has_ended_is_left_in_the_files(state: SqliteState, clock: FakeClock, path: Path) -> None:
    await state.put("expires", b"needle-expired" * 2000, 10)
    await state.put("taken", b"needle-taken", 60)
    await state.put("deleted", b"needle-deleted", 60)
    await state.put("replaced", b"needle-replaced", 60)
    await state.add("needle-group", "needle-member", b"needle-value", 10)
    await state.hit("needle-rate", limit=1, window=10)
    await state.put("stays", b"hay", 60)
    assert b"needle" in files(path)
    await state.take("taken")
    await state.delete("deleted")
    await state.replace("replaced", b"needle-replaced", b"hay", 60)
    clock.advance(11)
    await state.sweep()
    assert b"needle" not in files(path)
    assert b"hay" in files(path)


async def test_closing_leaves_one_file_and_nothing_deleted_in_it(path: Path, clock: FakeClock) -> None:
    state, other = SqliteState(path, clock=clock), SqliteState(path, clock=clock)
    await state.put("a", b"needle", 60)
    await state.take("a")
    await state.close()
    assert b"needle" not in files(path), "even while another process has it open"
    await other.close()
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]
    await other.close()


async def test_a_sweep_does_not_wait_for_who_reads(state: SqliteState, path: Path) -> None:
    await state.put("a", b"needle", 60)
    await state.take("a")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchone()
    await state.put("b", b"1", 60)
    await state.sweep()  # would take BUSY_TIMEOUT, and then the log could still not be emptied
    assert b"needle" in files(path)
    reader.close()
    await state.sweep()
    assert b"needle" not in files(path)


async def test_only_the_owner_reads_the_files(path: Path, clock: FakeClock) -> None:
    before = os.umask(0o022)
    try:
        state = SqliteState(path, clock=clock)
    finally:
        os.umask(before)
    await state.put("a", b"1", 60)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await state.close()


async def test_it_is_there_after_a_restart(path: Path, clock: FakeClock) -> None:
    state = SqliteState(path, clock=clock)
    await state.put("a", b"1", 60)
    await state.hit("k", limit=1, window=60)
    await state.close()
    state = SqliteState(path, clock=clock)
    assert await state.get("a") == b"1"
    assert not (await state.hit("k", limit=1, window=60)).allowed
    await state.close()


async def test_a_file_of_another_version_is_left_alone(path: Path) -> None:
    await SqliteState(path).close()
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {VERSION + 1}")
    other.close()
    with pytest.raises(StateError, match=f"expected state of version {VERSION} in .*, got {VERSION + 1}.*delete the"):
        SqliteState(path)


async def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StateError, match=r"expected state of version 1 in .*, got 0"):
        SqliteState(path)
    assert rows(path, "theirs") == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StateError, match="expected a database of CloudToLocalLLM"):
        SqliteState(path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="expected to write to"):
        SqliteState(tmp_path / "file" / "state.db")
    with pytest.raises(StateError, match="expected to write to"):
        SqliteState(tmp_path)


async def test_a_file_that_another_process_holds_is_unavailable(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    state = SqliteState(path, clock=clock)
    await state.put("a", b"1", 60)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    for call in (
        state.put("a", b"2", 60),
        state.take("a"),
        state.add("g", "m", b"", 60),
        state.hit("k", limit=1, window=60),
    ):
        with pytest.raises(StateUnavailableError, match="locked"):
            await call
    assert await state.get("a") == b"1", "reading waits for nobody"
    assert (await state.hit("k", limit=1, window=60, cost=0)).allowed
    holder.close()
    assert (await state.hit("k", limit=1, window=60)).allowed
    await state.close()
