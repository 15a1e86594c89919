"""What every adapter of the cloud's state does: one suite, run over each, with several clients of one store."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.support.redis_server import RedisServer, running_redis

from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.api.state.checks import MAX_TTL, MAX_VALUE
from cloudtolocalllm.api.state.redis import RedisState
from cloudtolocalllm.api.state.sqlite import SqliteState

Opener = Callable[[], State]

EVERY_CHARACTER = "".join(map(chr, range(0x21, 0x7F)))


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="c2l-") as folder, running_redis(Path(folder)) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens one more client of the same, empty store."""
    opened: list[State] = []
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        with redis.Redis.from_url(server.unix_url) as client:
            client.flushall()

    def open_() -> State:
        state: State = (
            SqliteState(tmp_path / "state.db") if request.param == "sqlite" else RedisState(server.unix_url)
        )
        opened.append(state)
        return state

    yield open_
    for state in opened:
        await state.close()


@pytest.fixture
def state(another: Opener) -> State:
    return another()


async def gather(*work: Any) -> list[Any]:
    async with asyncio.timeout(20):
        return list(await asyncio.gather(*work))


# values


async def test_a_value_is_kept_replaced_and_deleted_for_every_client(state: State, another: Opener) -> None:
    other = another()
    assert await state.get("a") is None
    assert await state.put("a", b"1", 60)
    assert await other.get("a") == b"1"
    assert await other.put("a", b"2", 60)
    assert await state.get("a") == b"2"
    assert await other.delete("a")
    assert not await state.delete("a")
    assert await state.get("a") is None


async def test_a_value_ends_with_its_time(state: State) -> None:
    await state.put("short", b"1", 0.05)
    await state.put("long", b"1", 60)
    await state.put("renewed", b"1", 0.05)
    await state.put("renewed", b"2", 60)
    await asyncio.sleep(0.1)
    assert await state.get("short") is None
    assert await state.take("short") is None
    assert not await state.delete("short")
    assert not await state.replace("short", b"1", b"2", 60)
    assert await state.get("long") == b"1"
    assert await state.get("renewed") == b"2"


async def test_only_new_changes_nothing_that_lives(state: State) -> None:
    assert await state.put("a", b"1", 0.5, only_new=True)
    assert not await state.put("a", b"2", 60, only_new=True)
    assert await state.get("a") == b"1"
    await asyncio.sleep(0.55)  # the refused one did not prolong it either
    assert await state.put("a", b"3", 60, only_new=True)
    assert await state.get("a") == b"3"


async def test_of_many_at_once_one_is_the_first(another: Opener) -> None:
    clients = [another() for _ in range(3)]
    for key in ("a", "b", "c"):
        puts = (clients[n % 3].put(key, str(n).encode(), 60, only_new=True) for n in range(45))
        won = await gather(*puts)
        assert won.count(True) == 1
        assert await clients[0].get(key) == str(won.index(True)).encode()


async def test_of_many_at_once_one_takes_it(another: Opener) -> None:
    clients = [another() for _ in range(3)]
    for key in ("a", "b", "c"):
        await clients[0].put(key, b"code", 60)
        taken = await gather(*(clients[n % 3].take(key) for n in range(45)))
        assert sorted(taken, key=bool) == [None] * 44 + [b"code"]
        assert await clients[0].get(key) is None


async def test_a_value_is_replaced_only_by_who_knows_it(state: State) -> None:
    assert not await state.replace("a", b"", b"1", 60)
    await state.put("a", b"1", 0.5)
    assert not await state.replace("a", b"other", b"2", 60)
    assert await state.get("a") == b"1"
    assert await state.replace("a", b"1", b"2", 60)
    await asyncio.sleep(0.55)  # it has the new time to live
    assert await state.get("a") == b"2"


async def test_of_many_replacements_at_once_one_happens(another: Opener) -> None:
    clients = [another() for _ in range(3)]
    await clients[0].put("a", b"0", 60)
    done = await gather(*(clients[n % 3].replace("a", b"0", str(n + 1).encode(), 60) for n in range(45)))
    assert done.count(True) == 1
    assert await clients[0].get("a") == str(done.index(True) + 1).encode()


# groups


async def test_a_group_has_members_with_a_time_each(state: State, another: Opener) -> None:
    other = another()
    assert await state.members("g") == [{}]
    assert await state.add("g", "a", b"1", 60)
    assert await other.add("g", "b", b"2", 0.5)
    assert await other.add("g", "c", b"3", 60)
    assert await state.members("g") == [{"a": b"1", "b": b"2", "c": b"3"}]
    assert await state.add("g", "a", b"new", 60)
    assert await other.remove("g", "c") == b"3"
    assert await other.remove("g", "c") is None
    await asyncio.sleep(0.55)
    assert await state.remove("g", "b") is None
    assert await state.members("g") == [{"a": b"new"}]


async def test_a_member_lives_as_long_as_it_was_last_said(state: State) -> None:
    await state.add("longer", "a", b"1", 0.1)
    await state.add("longer", "a", b"2", 60)
    await state.add("shorter", "a", b"1", 60)
    await state.add("shorter", "a", b"2", 0.1)
    await state.add("shorter", "b", b"3", 60)
    await state.remove("shorter", "b")
    await asyncio.sleep(0.15)
    assert await state.members("longer", "shorter") == [{"a": b"2"}, {}]


async def test_members_of_several_groups_come_in_the_order_asked(state: State) -> None:
    await state.add("g", "a", b"1", 60)
    await state.add("h", "b", b"2", 60)
    assert await state.members("h", "none", "g", "h") == [{"b": b"2"}, {}, {"a": b"1"}, {"b": b"2"}]
    assert await state.members() == []


async def test_a_full_group_takes_no_new_member_until_one_is_gone(state: State) -> None:
    assert not await state.add("none", "a", b"", 60, limit=0)
    assert await state.add("g", "a", b"1", 60, limit=2)
    assert await state.add("g", "b", b"1", 0.5, limit=2)
    assert not await state.add("g", "c", b"1", 60, limit=2)
    assert await state.add("g", "a", b"2", 60, limit=2), "one that is a member already may be replaced"
    assert await state.add("g", "a", b"3", 60, limit=1)
    assert set((await state.members("g"))[0]) == {"a", "b"}
    await asyncio.sleep(0.55)
    assert await state.add("g", "c", b"1", 60, limit=2)
    assert await state.members("g") == [{"a": b"3", "c": b"1"}]


async def test_of_many_new_members_at_once_the_limit_gets_in(another: Opener) -> None:
    clients = [another() for _ in range(3)]
    added = await gather(*(clients[n % 3].add("g", f"m{n}", b"", 60, limit=7) for n in range(60)))
    assert added.count(True) == 7
    (members,) = await clients[0].members("g")
    assert set(members) == {f"m{n}" for n, done in enumerate(added) if done}


async def test_a_large_group_expires_as_a_whole(state: State) -> None:
    for start in range(0, 2500, 100):
        await gather(*(state.add("g", f"m{n}", b"", 1.5) for n in range(start, start + 100)))
    await state.add("g", "stays", b"1", 60)
    await asyncio.sleep(1.6)
    assert await state.members("g") == [{"stays": b"1"}]


# rate counters


async def test_a_rate_is_exact_however_many_ask_at_once(another: Opener) -> None:
    clients = [another() for _ in range(3)]
    limit = 20
    hits = await gather(*(clients[n % 3].hit("k", limit=limit, window=3600) for n in range(5 * limit)))
    allowed = [hit for hit in hits if hit.allowed]
    assert len(allowed) == limit
    assert sorted(hit.remaining for hit in allowed) == list(range(limit))
    for hit in hits:
        assert hit.limit == limit
        assert hit.allowed or (hit.remaining == 0 and 170 < hit.retry_after <= 180.01)


async def test_a_rate_lets_in_again_after_what_it_said(state: State) -> None:
    first = await state.hit("k", limit=2, window=2)
    assert (first.allowed, first.remaining, first.retry_after) == (True, 1, 0)
    assert (await state.hit("k", limit=2, window=2)).allowed
    refused = await state.hit("k", limit=2, window=2)
    assert not refused.allowed
    assert 0 < refused.retry_after <= 1.01
    await asyncio.sleep(refused.retry_after)
    assert (await state.hit("k", limit=2, window=2)).allowed


async def test_a_cost_counts_as_that_many_and_a_refused_one_not_at_all(state: State) -> None:
    assert (await state.hit("k", limit=10, window=3600, cost=8)).remaining == 2
    refused = await state.hit("k", limit=10, window=3600, cost=3)
    assert not refused.allowed
    assert refused.remaining == 2
    assert 350 < refused.retry_after <= 360.01
    assert (await state.hit("k", limit=10, window=3600, cost=2)).allowed
    too_much = await state.hit("other", limit=10, window=3600, cost=11)
    assert (too_much.allowed, too_much.remaining) == (False, 10)


async def test_asking_counts_nothing(state: State) -> None:
    for _ in range(3):
        asked = await state.hit("k", limit=1, window=3600, cost=0)
        assert (asked.allowed, asked.remaining, asked.retry_after) == (True, 1, 0)
    await state.hit("k", limit=1, window=3600)
    asked = await state.hit("k", limit=1, window=3600, cost=0)
    assert (asked.allowed, asked.remaining) == (False, 0)
    assert 3590 < asked.retry_after <= 3600.01


# what goes in


async def test_what_is_at_its_limits_goes_in_and_comes_out(state: State) -> None:
    long = (EVERY_CHARACTER * 3)[:200]
    large = bytes(range(256)) * (MAX_VALUE // 256)
    assert len(large) == MAX_VALUE
    for name in (EVERY_CHARACTER, long, "*", "[a-z]", "{tag}", "a:b/c"):
        for value in (b"", b"\0", large):
            await state.put(name, value, MAX_TTL)
            assert await state.get(name) == value
            await state.add(name, name, value, MAX_TTL)
            assert await state.members(name) == [{name: value}]
        assert (await state.hit(name, limit=1_000_000_000, window=MAX_TTL, cost=1_000_000_000)).allowed
        assert not (await state.hit(name, limit=1_000_000_000, window=MAX_TTL)).allowed
    assert await state.replace(long, large, large[::-1], 60)
    assert await state.take(long) == large[::-1]


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "a" * 201, "\x7f", "\0"])
async def test_a_bad_name_is_refused(state: State, name: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: state.get(name),
        lambda: state.put(name, b"", 60),
        lambda: state.replace(name, b"", b"", 60),
        lambda: state.take(name),
        lambda: state.delete(name),
        lambda: state.add(name, "m", b"", 60),
        lambda: state.add("g", name, b"", 60),
        lambda: state.remove(name, "m"),
        lambda: state.remove("g", name),
        lambda: state.members("g", name),
        lambda: state.hit(name, limit=1, window=60),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected 1 to 200 printable ASCII characters"):
            await call()
    assert await state.members("g") == [{}]


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, float("inf"), float("nan")])
async def test_a_bad_time_to_live_is_refused_and_changes_nothing(state: State, ttl: float) -> None:
    await state.put("a", b"1", 60)
    calls: list[Callable[[], Any]] = [
        lambda: state.put("a", b"2", ttl),
        lambda: state.replace("a", b"1", b"2", ttl),
        lambda: state.add("g", "m", b"", ttl),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected a time to live above 0"):
            await call()
    with pytest.raises(ValueError, match="expected a window"):
        await state.hit("a", limit=1, window=ttl)
    assert await state.get("a") == b"1"
    assert await state.members("g") == [{}]


async def test_bad_values_limits_and_costs_are_refused(state: State) -> None:
    large = bytes(MAX_VALUE + 1)
    calls: list[Callable[[], Any]] = [
        lambda: state.put("a", large, 60),
        lambda: state.replace("a", large, b"", 60),
        lambda: state.replace("a", b"", large, 60),
        lambda: state.add("g", "m", large, 60),
        lambda: state.add("g", "m", b"", 60, limit=-1),
        lambda: state.hit("k", limit=0, window=60),
        lambda: state.hit("k", limit=1_000_000_001, window=60),
        lambda: state.hit("k", limit=1, window=60, cost=-1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected a"):
            await call()


async def test_values_groups_and_counters_are_different_things(state: State) -> None:
    await state.put("a", b"value", 60)
    await state.add("a", "a", b"member", 60)
    assert (await state.hit("a", limit=1, window=60)).allowed
    assert await state.get("a") == b"value"
    assert await state.members("a") == [{"a": b"member"}]
    assert await state.delete("a")
    assert await state.members("a") == [{"a": b"member"}]
    assert not (await state.hit("a", limit=1, window=60)).allowed


async def test_a_sweep_erases_members_whose_group_lives_on(state: State) -> None:
    for n in range(30):
        await state.add(f"g{n}", "b", b"1", 60)
    await gather(*(state.add(f"g{n}", "a", b"1", 0.3) for n in range(30)))
    assert await state.sweep() == 0
    await asyncio.sleep(0.35)
    assert await state.sweep() == 30
    assert await state.sweep() == 0
    assert await state.members("g0", "g29") == [{"b": b"1"}] * 2


async def test_a_closed_state_says_so(another: Opener) -> None:
    state = another()
    await state.put("a", b"", 60)
    await state.close()
    for call in (state.get("a"), state.put("a", b"", 1), state.members("g"), state.hit("k", limit=1, window=1)):
        with pytest.raises(StateUnavailableError, match="closed"):
            await call


# SQLite: the command line and the API are two processes

_RACER = """
import asyncio, sys
from pathlib import Path
from cloudtolocalllm.api.state.sqlite import SqliteState

async def main():
    state = SqliteState(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    hits = sum([(await state.hit("k", limit=1500, window=36000)).allowed for n in range(2500)])
    first = sum([await state.put(f"new{n}", b"", 60, only_new=True) for n in range(300)])
    taken = sum([await state.take(f"code{n}") is not None for n in range(300)])
    added = sum([await state.add("g", f"{sys.argv[2]}-{n}", b"", 60, limit=100) for n in range(300)])
    await state.close()
    print(first, taken, added, hits, flush=True)

asyncio.run(main())
"""


def race(path: Path, racers: int) -> list[list[int]]:
    """Have processes do the same at once and return what each of them counted."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _RACER, str(path), str(n)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for n in range(racers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [[int(word) for word in process.communicate(timeout=30)[0].split()] for process in processes]


async def test_two_processes_on_one_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = SqliteState(path)
    for n in range(300):
        await state.put(f"code{n}", b"1", 60)
    counts = await asyncio.to_thread(race, path, 2)
    assert [sum(column) for column in zip(*counts, strict=True)] == [300, 300, 100, 1500]
    assert len((await state.members("g"))[0]) == 100
    await state.close()
