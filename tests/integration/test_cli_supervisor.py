"""The supervisor with real child processes that behave badly."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudtolocalllm.cli.supervisor import MAX_RESTARTS, Part, PartFailedError, Supervisor

CHATTY_AT_THE_END = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a handler could come while the line below is written
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
for number in range(20_000):
    print("line", number, "x" * 80)
"""
WITH_A_CHILD = """
import os, signal, sys, time
if os.fork() == 0:
    print("child", os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
print("ready", os.getpid(), flush=True)
signal.pause()
"""
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
FAILING = "print('what is wrong'); raise SystemExit(3)"


class Case:
    def __init__(self, script: Path) -> None:
        self.lines: list[str] = []
        self.came = asyncio.Event()
        self.supervisor = Supervisor(
            on_line=self._on_line, on_started=lambda _: None, program=(sys.executable, str(script))
        )

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self.came.set()

    async def said(self, word: str, times: int = 1) -> list[int]:
        """Wait for lines of a word and a number; return the numbers."""
        while len(found := [line for line in self.lines if line.split()[0] == word]) < times:
            self.came.clear()
            await self.came.wait()
        return [int(line.split()[1]) for line in found if " " in line]

    @contextlib.asynccontextmanager
    async def running(self, grace: float = 10.0) -> AsyncIterator[Part]:
        """Start one part, watch it within, then stop it."""
        part = Part("part", {}, grace, "LEASH")
        async with asyncio.timeout(30):
            await self.supervisor.start(part)
            try:
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(self.supervisor.watch())
                    yield part
                    watch.cancel()
            finally:
                await self.supervisor.stop()


def script(folder: Path, text: str) -> Path:
    path = folder / "part.py"
    path.write_text(text)
    return path


async def test_a_part_that_says_much_at_its_end_is_heard_and_ends_by_itself(tmp_path: Path) -> None:
    case = Case(script(tmp_path, CHATTY_AT_THE_END))
    async with case.running() as part:
        await case.said("ready")
    assert part.process is not None
    assert part.process.returncode == 0
    assert len(case.lines) == 20_001, "nothing of its last words is lost"


async def test_a_part_is_restarted_though_its_child_holds_the_pipe(tmp_path: Path) -> None:
    case = Case(script(tmp_path, WITH_A_CHILD))
    children: list[int] = []
    try:
        async with case.running():
            (first,) = await case.said("ready")
            os.kill(first, signal.SIGKILL)
            _, second = await case.said("ready", 2)
            children = await case.said("child", 2)
            assert second != first
            for child in children:
                os.kill(child, 0)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


async def test_a_part_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    case = Case(script(tmp_path, DEAF))
    async with case.running(grace=0.2) as part:
        await case.said("ready")
    assert part.process is not None
    assert part.process.returncode == -signal.SIGKILL


async def test_a_part_that_ends_again_and_again_ends_the_whole_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtolocalllm.cli.supervisor.Backoff.next", lambda _: 0.01)
    case = Case(script(tmp_path, FAILING))
    with pytest.raises(ExceptionGroup) as caught:
        async with case.running():
            await asyncio.sleep(30)
    (error,) = caught.value.exceptions
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, PartFailedError)
    assert "what is wrong" in str(error)
    assert case.lines == ["what is wrong"] * (MAX_RESTARTS + 1)
