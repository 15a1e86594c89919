"""The platform under test, with as many users as a case needs, each with an API key and a paired bridge."""

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.engines import ROOT, EngineProcess
from tests.support.stack import Stack, running_stack

from bench.engines import question
from bench.http import Target
from cloudtolocalllm.api.secrets import load_signing_ring
from cloudtolocalllm.bridge.pairing import provision_local

BRIDGES_TIMEOUT = 120.0
CHAT = "/ollama/api/chat"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a machine at home."""

    id: str
    api_key: str
    credential: Path
    """The file of their bridge's credential."""


@contextlib.contextmanager
def platform(engine: EngineProcess, *arguments: str) -> Iterator[Stack]:
    """Run `up` on an engine.

    Args:
        engine: The owner's engine.
        arguments: More of the command line.
    """
    with (
        tempfile.TemporaryDirectory(prefix="c2l-bench-") as folder,
        running_stack(Path(folder) / "data", engines=[engine.url], arguments=arguments) as stack,
    ):
        yield stack


def make_users(stack: Stack, count: int) -> list[User]:
    """Add users, as signing in and pairing would."""
    folder = stack.data_dir / "bench-bridges"
    folder.mkdir(exist_ok=True)
    ring = load_signing_ring(stack.secrets_dir)
    users = []
    for number in range(count):
        user, key = stack.new_user(f"bench-{secrets.token_hex(4)}-{number}")
        path = folder / f"{user}.json"
        provision_local(path, ring, user=user, server=stack.url, now=time.time())
        users.append(User(user, key, path))
    return users


def chat(stack: Stack, api_key: str, content: str, *, name: str = "through") -> Target:
    """Return a chat request by Ollama's API through the platform."""
    return Target.at(name, stack.url + CHAT, content, {"authorization": f"Bearer {api_key}"})


def direct(engine: EngineProcess, content: str, *, name: str = "direct") -> Target:
    """Return the same request to the engine itself."""
    return Target.at(name, engine.url + "/api/chat", content)


def stamped(pace: float, tokens: int = 10_000_000) -> str:
    """Return the content of a request whose tokens tell when they were sent."""
    return question(pace=pace, tokens=tokens, timestamps=True)


@contextlib.asynccontextmanager
async def bridges(
    server: str, engine: EngineProcess, users: Sequence[User], *, processes: int = 1, idle: bool = False
) -> AsyncIterator[list[int]]:
    """Run the users' bridges, many to a process, and wait until the platform has taken them all.

    Args:
        server: URL that they dial.
        engine: Theirs all.
        users: Whose.
        processes: Among how many the bridges are divided.
        idle: Only control connections, without engines.

    Yields:
        The process ids.
    """
    running: list[asyncio.subprocess.Process] = []
    try:
        for part in range(processes):
            files = [str(user.credential) for user in users[part::processes]]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.bridges", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )  # fmt: skip
            running.append(process)
            if process.stdin is not None:
                job = {"server": server, "engine": engine.url, "credentials": files, "idle": idle}
                process.stdin.write(json.dumps(job).encode() + b"\n")
        for process in running:
            if process.stdout is not None:
                line = await asyncio.wait_for(process.stdout.readline(), BRIDGES_TIMEOUT)
                if line != b"ready\n":
                    raise RuntimeError("expected all bridges to connect")
        yield [process.pid for process in running]
    finally:
        for process in running:
            if process.stdin is not None:
                process.stdin.close()
        for process in running:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
