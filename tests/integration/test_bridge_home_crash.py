"""A process that is killed in the middle of its writes: nothing is half, only the last batch is lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.store import conversations, messages, runs, transfer
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.runs import NewRun, Piece, RunState, TextKind
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.runtime.clock import SystemClock

BATCH = "0123456789é"


async def write_forever(path: Path) -> None:
    """In the child: tell the size of the text after each write that was acknowledged."""
    store = await HomeStore.open(path, SystemClock())
    number = 0
    while True:
        number += 1
        talk = await store.write(lambda tx: conversations.create(tx, f"talk {number}"))  # noqa: B023 - awaited here
        note = await store.write(lambda tx: messages.add(tx, talk.id, NewMessage("user", "question")))  # noqa: B023
        run = await store.write(lambda tx: runs.begin(tx, NewRun(talk.id, note.id, "m")))  # noqa: B023
        size = 0
        for _ in range(30):
            at = size
            text = BATCH * 50
            await store.write(lambda tx: runs.append(tx, run.id, [Piece(at, TextKind.CONTENT, text)]))  # noqa: B023
            size += len(text.encode())
            sys.stdout.write(f"{run.id} {size}\n")
            sys.stdout.flush()
        if number % 3 == 0:
            await store.write(lambda tx: runs.finish(tx, run.id, runs.End(RunState.DONE)))  # noqa: B023
            await store.write(lambda tx: conversations.delete(tx, talk.id))  # noqa: B023
            sys.stdout.write(f"{run.id} 0\n")
            sys.stdout.flush()


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_costs_at_most_what_was_not_acknowledged(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.home.db"
    command = [sys.executable, "-m", "tests.integration.test_bridge_home_crash", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])
    assert child.stdout is not None
    lines: list[str] = []
    stop = time.monotonic() + 20
    wanted = random.Random(seed).randrange(20, 150)
    while len(lines) < wanted and time.monotonic() < stop:
        lines.append(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read()
    child.wait(10)
    child.stdout.close()
    told: dict[str, int] = {}
    for line in [*lines, *rest.splitlines(keepends=True)]:
        if line.endswith("\n"):
            id_, said = line.split()
            told[id_] = int(said)
    assert len(lines) == wanted
    store = DirectStore(path)
    assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not store.db.execute("PRAGMA foreign_key_check").fetchall()
    store(lambda tx: runs.left_over(tx, within=0))
    batch = len((BATCH * 50).encode())
    for id_, size in told.items():
        run = store(runs.find, id_)
        if size == 0:
            assert run is None
            continue
        if run is None:
            # The child was killed after it deleted this and before it told so.
            assert size == 30 * batch
            continue
        assert run.size in (size, size + batch)
        assert run.state in (RunState.INTERRUPTED, RunState.DONE)
        assert store(messages.get, run.message).content == BATCH * (run.size // len(BATCH.encode()))
    for talk in store(conversations.page).conversations:
        assert store(transfer.export, talk.id)["messages"][0]["content"] == "question"
    store.close()


async def test_two_stores_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """As a command of the owner does while the bridge runs."""
    path = tmp_path / "a.home.db"
    bridge, other = [await HomeStore.open(path, FakeClock()) for _ in range(2)]
    await asyncio.gather(
        *(store.write(lambda tx: conversations.create(tx, "x")) for store in (bridge, other) for _ in range(20))
    )
    found = await bridge.read(conversations.page)
    assert len(found.conversations) == 40
    await bridge.close()
    await other.close()


if __name__ == "__main__":
    asyncio.run(write_forever(Path(sys.argv[1])))
