"""One `up` a data directory, and what it leaves behind when it is killed."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtolocalllm.cli.layout import Layout, write_private
from cloudtolocalllm.runtime import locks
from cloudtolocalllm.runtime.processes import start_time

LEFTOVER_GRACE = 15.0
"""Seconds that processes of a killed `up` are given to end by themselves."""


class AlreadyRunningError(Exception):
    """Another process holds the data directory; the text says which."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the lock file tells about the process that holds it."""

    pid: int
    url: str


class Lock:
    """Held while `up` runs: an advisory lock that the system drops with the process, however it ends."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.lock
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            AlreadyRunningError: Another process has it.
        """
        try:
            self._fd = locks.take(self._path)
        except locks.HeldError:
            running = read_running(self._path)
            who = f"process {running.pid} ({running.url or 'starting'})" if running else "another process"
            raise AlreadyRunningError(
                f"{who} already runs on {self._path.parent}; stop it, or choose another --data-dir"
            ) from None
        self.tell("")

    def tell(self, url: str) -> None:
        """Write who holds the lock and where it serves."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def read_running(path: Path) -> Running | None:
    """Return what a lock file says, or None when there is none or it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        return Running(int(value["pid"]), str(value["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock file."""
    if not path.exists():
        return False  # and none is made by asking
    try:
        with locks.held(path):
            return False
    except locks.HeldError:
        return True


def record_processes(path: Path, pids: dict[str, int]) -> None:
    """Write which processes this start made; with their start times, since a number can be used again."""
    write_private(
        path,
        json.dumps([{"name": name, "pid": pid, "started": start_time(pid)} for name, pid in pids.items()]),
    )


async def await_leftovers(path: Path) -> None:
    """Wait until the processes of an earlier start are gone; end those that stay.

    They end by themselves when their leash breaks; a hung one is killed by its id after LEFTOVER_GRACE.
    """
    records = _recorded(path)
    deadline = asyncio.get_running_loop().time() + LEFTOVER_GRACE
    while left := [r for r in records if _lives(r)]:
        if asyncio.get_running_loop().time() > deadline:
            for record in left:
                os.kill(int(record["pid"]), signal.SIGKILL)
        await asyncio.sleep(0.05)


def _recorded(path: Path) -> list[dict[str, Any]]:
    try:
        records: list[dict[str, Any]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return records


def _lives(record: dict[str, Any]) -> bool:
    started = start_time(int(record["pid"]))
    return started is not None and started == record["started"]
