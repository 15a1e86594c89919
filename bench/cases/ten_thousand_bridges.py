"""Ten thousand idle bridges on one API process: memory, who is present, and how fast one is woken."""

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.support.engines import ROOT
from tests.support.stack import Stack

from bench.case import Bench
from bench.measure import KILOBYTE, pss
from bench.platform import User, make_users, platform
from bench.report import Result, percentile
from cloudtolocalllm.api.secrets import load_signing_ring
from cloudtolocalllm.auth.dpop import Nonces
from cloudtolocalllm.bridge.identity import BridgeIdentity

BRIDGES = 10_000
QUICK = 1_000
MEMORY_BAR = 20.0
"""Kilobytes a bridge."""
WAKE_BAR = 50.0
"""Milliseconds, p99."""
SAMPLES = 100
ROUNDS = 5
SPARE_FILES = 200
ANSWER_TIMEOUT = 180.0


async def run(bench: Bench) -> list[Result]:
    """Measure one API process, asked and dialled on its own socket: the edge would need two descriptors a bridge."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(QUICK if bench.quick else BRIDGES, hard - SPARE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by all processes of the platform
    with platform(bench.engine, "--warm", "0") as stack:
        users = make_users(stack, count)
        api = stack.processes()["api"].pid
        async with _load() as process:
            before = pss(api)
            connected = await _ask(process, _job(stack, users))
            await asyncio.sleep(2)
            growth = (pss(api) - before) / count / KILOBYTE
            woken = await _ask(process, {"do": "wake", "samples": SAMPLES, "rounds": ROUNDS})
    missing = count - connected["connected"] + woken["missed"] + woken["lost"]
    if missing:
        raise RuntimeError(f"expected every bridge to be present and woken, {missing} were not")
    note = f"{count} control connections at one API process, all present; PSS growth"
    wakes = woken["latencies"]
    return [
        Result("memory_per_idle_bridge", growth, "KB", bar=MEMORY_BAR, note=note),
        Result("wake_p99", percentile(wakes, 99), "ms", percentile(wakes, 50), WAKE_BAR,
               note=f"question about a request to the bridge's wake-up, beside {count} bridges; baseline: p50"),
    ]  # fmt: skip


def _job(stack: Stack, users: list[User]) -> dict[str, Any]:
    people = []
    for user in users:
        bridge = BridgeIdentity.load(user.credential)
        people.append({"key": user.api_key, "credential": bridge.credential, "jwk": bridge.key.private_jwk()})
    return {
        "do": "connect",
        "unix": str(stack.run_dir / "api.sock"),
        "host": f"127.0.0.1:{stack.port}",
        "nonce": Nonces.of_ring(load_signing_ring(stack.secrets_dir)).issue(time.time() + 4),
        "users": people,
    }


async def _ask(process: asyncio.subprocess.Process, command: dict[str, Any]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("expected pipes")
    process.stdin.write(json.dumps(command).encode() + b"\n")
    async with asyncio.timeout(ANSWER_TIMEOUT):
        await process.stdin.drain()
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("expected an answer of the load generator, but it ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextlib.asynccontextmanager
async def _load() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.control_load", cwd=ROOT, limit=16 * 1024 * 1024,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()
