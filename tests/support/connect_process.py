"""`cloudtolocalllm connect` as processes, and homes to pair it with."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.stack import Stack

TIMEOUT = 40.0
_LINK = re.compile(r"https?://\S+/pair#c2l1\.\S+")


@dataclass
class Done:
    """A process that has ended."""

    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("C2L_")}
    return {**kept, **more}


async def run(arguments: list[str], *, typed: str = "", **variables: str) -> Done:
    """Run a command of the command line to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudtolocalllm", *arguments, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(**variables),
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(typed.encode()), TIMEOUT)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def connect(folder: Path, *arguments: str, typed: str = "", **variables: str) -> Done:
    """Run an action of `connect` on a folder."""
    full = ["connect", *arguments]
    if arguments[:1] != ("status",):  # which asks a process, not a folder
        full += ["--data-dir", str(folder), "--no-keyring"]
    return await run(full, typed=typed, **variables)


@asynccontextmanager
async def connect_running(folder: Path, *arguments: str, **variables: str) -> AsyncIterator[str]:
    """Run the endpoint; give its URL."""
    full = ["connect", "--json", *arguments, "--data-dir", str(folder), "--no-keyring"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudtolocalllm", *full, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, env=environment(**variables),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), TIMEOUT)
        yield json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0


async def invitation(bridge_folder: Path) -> str:
    """Return a pairing link of the bridge that is kept in a folder."""
    done = await run(["bridge", "pair-device", "--data-dir", str(bridge_folder)])
    found = _LINK.search(done.out)
    assert found is not None, done.err
    return found.group()


@asynccontextmanager
async def laptop(stack: Stack, folder: Path, *, bridge: str = "bridge", server: str = "") -> AsyncIterator[str]:
    """A computer away from home: paired with a bridge of a platform, its endpoint running.

    Args:
        stack: The platform.
        folder: What the computer keeps.
        bridge: Folder of the bridge below the platform's.
        server: URL by which the platform is reached; "" for its own.
    """
    link = await invitation(stack.data_dir / bridge)
    done = await connect(folder, "add", link, "--server", server or stack.url, "--key-file", "-", typed=stack.api_key)
    assert done.status == 0, done.err
    async with connect_running(folder, "--port", "0") as url:
        yield url


@contextmanager
def laptop_of(stack: Stack, folder: Path) -> Iterator[str]:
    """As `laptop`, with the platform's own bridge, for several tests: it needs no loop."""
    kept = ["--data-dir", str(folder), "--no-keyring"]
    made = _finished(["bridge", "pair-device", "--data-dir", str(stack.data_dir / "bridge")])
    found = _LINK.search(made)
    assert found is not None, made
    _finished(["connect", "add", found.group(), "--server", stack.url, "--key-file", "-", *kept], stack.api_key)
    command = [sys.executable, "-m", "cloudtolocalllm", "connect", "--json", "--port", "0", *kept]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def _finished(arguments: list[str], typed: str = "") -> str:
    """Run a command to its end; return what it wrote."""
    command = [sys.executable, "-m", "cloudtolocalllm", *arguments]
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, env=environment(), timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
