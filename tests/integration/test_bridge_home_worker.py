"""The store's thread: bounded, in turn, with deadlines; what fails leaves nothing behind."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.support.bridge_parts import home
from tests.support.fake_clock import FakeClock
from tests.support.gateway_parts import store_of
from tests.support.home_store import DirectStore
from tests.support.link_parts import turns, until
from tests.support.scripted_engine import scripted_engine

from cloudtolocalllm.bridge.store import conversations, database, messages, worker
from cloudtolocalllm.bridge.store.errors import NotHereError, StoreBusyError, StoreError
from cloudtolocalllm.bridge.store.lock import is_held
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.bridge.store.tx import Tx

ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[HomeStore]:
    opened = await HomeStore.open(tmp_path / "a.home.db", FakeClock())
    yield opened
    await opened.close()


async def test_work_without_an_end_is_broken_off_and_undone(store: HomeStore) -> None:
    def endless(tx: Tx) -> None:
        conversations.create(tx, "half")
        tx.one(ENDLESS)

    with pytest.raises(StoreBusyError):
        await store.write(endless, seconds=0.1)
    assert (await store.read(conversations.page)).conversations == ()


async def test_work_that_raises_is_undone_and_tells_nobody(store: HomeStore) -> None:
    def broken(tx: Tx) -> None:
        conversations.create(tx, "half")
        raise NotHereError("no")

    before = store.bell.newest
    with pytest.raises(NotHereError):
        await store.write(broken)
    assert (await store.read(conversations.page)).conversations == ()
    assert store.bell.newest == before


async def test_too_much_at_once_is_refused_and_the_rest_is_done_in_turn(
    store: HomeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._worker, "_limit", 5)
    free = threading.Event()
    first = asyncio.ensure_future(store.read(lambda tx: free.wait(10)))
    await asyncio.sleep(0)
    await until(lambda: not store._worker._queue.qsize())  # the thread takes it
    done: list[int] = []
    waiting = [asyncio.ensure_future(store.write(lambda tx, n=n: done.append(n))) for n in range(5)]  # type: ignore[misc] # bound now
    await asyncio.sleep(0)
    with pytest.raises(StoreBusyError, match="at most 5"):
        await store.read(lambda tx: None)
    free.set()
    await asyncio.gather(first, *waiting)
    assert done == [0, 1, 2, 3, 4]


async def test_work_that_waited_too_long_is_not_begun(store: HomeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "QUEUE_TIME", -1.0)
    with pytest.raises(StoreBusyError):
        await store.write(lambda tx: conversations.create(tx, "x"))
    monkeypatch.undo()
    assert (await store.read(conversations.page)).conversations == ()


async def test_a_write_is_made_although_nobody_waits_any_more(store: HomeStore) -> None:
    task = asyncio.ensure_future(store.write(lambda tx: conversations.create(tx, "x")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len((await store.read(conversations.page)).conversations) == 1


async def test_closing_finishes_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    store = await HomeStore.open(tmp_path / "b.home.db", FakeClock())
    told: list[bool] = []
    for _ in range(20):
        store.post(lambda tx: conversations.create(tx, "x"), told.append)
    await store.close()
    await store.close()
    await asyncio.sleep(0)
    assert told == [True] * 20
    with pytest.raises(StoreError, match="closed"):
        await store.read(conversations.page)
    store.post(lambda tx: None, told.append)
    assert told[-1] is False
    direct = DirectStore(tmp_path / "b.home.db")
    assert len(direct(conversations.page).conversations) == 20
    direct.close()


async def test_an_opening_that_is_cancelled_leaves_no_thread(tmp_path: Path) -> None:
    begun, free = threading.Event(), threading.Event()

    def connect() -> sqlite3.Connection:
        begun.set()
        free.wait(10)
        return database.connect(tmp_path / "a.home.db")

    opening = worker.Worker(connect, time.time)
    starting = asyncio.ensure_future(opening.start())
    await until(begun.is_set)
    starting.cancel()
    await asyncio.sleep(0)
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert opening._thread is not None
    assert not opening._thread.is_alive()


@pytest.mark.parametrize("turn", [1, 2, 4, 8])
async def test_a_bridge_whose_end_is_cancelled_lets_go_of_everything(tmp_path: Path, turn: int) -> None:
    async with scripted_engine() as engine, home(tmp_path, engine.url) as at:
        store = store_of(at)
        closing = asyncio.ensure_future(at.bridge.close())
        await turns(turn)
        closing.cancel()
        await asyncio.wait((closing,))
        assert not is_held(store.path)
        thread = store._worker._thread
        assert thread is not None
        thread.join(10)
        assert not thread.is_alive()


def test_deleted_text_is_not_left_in_the_file(tmp_path: Path) -> None:
    store = DirectStore(tmp_path / "c.home.db")
    talk = store(conversations.create, "zq title zq").id
    for _ in range(20):
        store(messages.add, talk, NewMessage("user", "zq secret words zq " * 100))
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"zq secret words zq" in store.path.read_bytes()
    store(conversations.delete, talk)
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = store.path.read_bytes()
    assert b"zq secret words zq" not in raw
    assert b"zq title zq" not in raw
    store.close()
