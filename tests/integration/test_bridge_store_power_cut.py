"""A power cut at any step of encrypting, decrypting or giving a store another key: one whole store, and its key."""

import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.store import conversations, database, encryption, key_place, messages
from cloudtolocalllm.bridge.store.errors import StoreKeyError
from cloudtolocalllm.bridge.store.messages import NewMessage

NEEDLE = b"marmalade"
ACTS = ("encrypt", "change", "decrypt")
CUT = 9
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.link", "os.truncate", "shutil.move", "sqlite3.connect")


def act_on(path: Path, act: str) -> None:
    new = f"file:{path.parent / 'new-key'}"
    if act == "encrypt":
        encryption.encrypt(path, new)
    elif act == "change":
        encryption.change_key(path, new)
    else:
        encryption.decrypt(path)


def cut_before(step: int) -> None:
    """End this process without a word before it changes files, but the lock's, for the n-th time."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
        if (event in _CHANGES or writes) and ".lock" not in str(arguments[0]):
            seen += 1
            if seen > step:
                os._exit(CUT)

    sys.addaudithook(hook)


def rehearse(folder: Path, act: str) -> None:
    """Cut the act before each of its steps, each time on another copy, until none is left."""
    os.fsync = lambda fd: None  # what is cut here is the process; it would only take time
    step, status = 0, CUT
    while status == CUT:
        copy = folder.with_name(f"{act}-{step:03}")
        shutil.copytree(folder, copy)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cut_before(step)
                act_on(copy / "a.home.db", act)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        step += 1
    if status:
        raise SystemExit(status)


def content(path: Path) -> list[tuple[object, ...]]:
    store = DirectStore(path)
    try:
        assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return store.db.execute("SELECT * FROM messages ORDER BY seq").fetchall()
    finally:
        store.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", ACTS)
def test_a_cut_at_any_step_costs_the_attempt_and_nothing_else(tmp_path: Path, act: str) -> None:
    folder = tmp_path / "first"
    path = folder / "a.home.db"
    store = DirectStore(path)
    talk = store(conversations.create, "marmalade").id
    for number in range(20):
        store(messages.add, talk, NewMessage("user", f"marmalade {number} " * 100))
    store.close()
    if act != "encrypt":
        encryption.encrypt(path, f"file:{tmp_path / 'old-key'}")
    before = content(path)
    command = [sys.executable, "-m", "tests.integration.test_bridge_store_power_cut", str(folder), act]
    subprocess.run(command, check=True, timeout=200, cwd=Path(__file__).resolve().parents[2])
    copies = sorted(tmp_path.glob(f"{act}-*"))
    assert len(copies) > 8
    ends = [looked_at(copy / "a.home.db", act, before, again=n % 4 == 0) for n, copy in enumerate(copies)]
    assert not ends[0]
    assert ends[-1]
    assert sorted(ends) == ends, "expected the old store up to one step, and the new one from there"


def looked_at(path: Path, act: str, before: list[tuple[object, ...]], *, again: bool) -> bool:
    """See that a store is whole, as a bridge that starts does; tell whether the act came about.

    Args:
        path: The store.
        act: Which.
        before: What was in it.
        again: Whether to try the act once more.
    """
    assert content(path) == before  # as a command does, that does not tidy up
    encryption.settle(path)
    database.inspect(path)
    assert content(path) == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(f".{path.name}")] == []
    noted = key_place.read_note(path)
    assert len(noted) <= 1
    clear = any(NEEDLE in file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    assert clear == (noted == ())
    done = {"encrypt": not clear, "decrypt": clear, "change": noted == (f"file:{path.parent / 'new-key'}",)}[act]
    if again and not done:
        act_on(path, act)  # it comes about now
        assert content(path) == before
    elif again:
        with pytest.raises(StoreKeyError):
            act_on(path, act)
    return done


if __name__ == "__main__":
    rehearse(Path(sys.argv[1]), sys.argv[2])
