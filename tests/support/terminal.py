"""A command at a terminal of its own, as a person sits at it."""

import asyncio
import contextlib
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.connect_process import TIMEOUT, environment

_SIT_DOWN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "cloudtolocalllm", *sys.argv[1:]])
"""
"""Takes the terminal for its own, so that Ctrl-C there reaches it; then it is the command."""
CTRL_C = "\x03"
CTRL_D = "\x04"


class Terminal:
    """What is shown, and what is typed."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self._descriptor = descriptor
        self._process = process
        self._news = asyncio.Event()
        self.shown = ""

    def read(self) -> None:
        """Take what the command wrote."""
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # EIO: it has ended
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self.shown += data.decode(errors="replace")
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    async def until(self, pattern: str) -> str:
        """Wait until something is shown, and return its first group."""
        async with asyncio.timeout(TIMEOUT):
            while (found := re.search(pattern, self.shown)) is None:
                assert self._process.returncode is None or self._news.is_set(), f"ended with:\n{self.shown}"
                self._news.clear()
                await self._news.wait()
        return found.group(found.re.groups and 1)

    async def ended(self) -> int:
        """Wait for its end, and return its status."""
        status = await asyncio.wait_for(self._process.wait(), TIMEOUT)
        await asyncio.sleep(0.05)  # its last words
        return status


@asynccontextmanager
async def at_terminal(*arguments: str, **variables: str) -> AsyncIterator[Terminal]:
    """Run a command of the command line at a new terminal."""
    ours, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SIT_DOWN, *arguments, stdin=its, stdout=its, stderr=its,
        env=environment(**variables), start_new_session=True,
    )  # fmt: skip
    os.close(its)
    terminal = Terminal(ours, process)
    asyncio.get_running_loop().add_reader(ours, terminal.read)
    try:
        yield terminal
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
