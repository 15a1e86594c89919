"""Small chat requests through one proxy on one core, sixteen at once, answered by a stand-in for the bridge."""

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator

from tests.support.engines import ROOT
from tests.support.ports import free_port

from bench.case import Bench
from bench.engines import question
from bench.http import Client, Target
from bench.load import Job, in_process
from bench.measure import CpuMeter
from bench.report import Result, median
from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, Assertion, mint

AT_ONCE = 16
ROUNDS = 3
BAR = 2000.0
INSTANCE = "px-00000000000000be"
USER = "bench"
PROXY_CORE, REST_CORE = 0, 1


async def run(bench: Bench) -> list[Result]:
    """Measure the proxy alone: no edge, no engine."""
    key = secrets.token_bytes(32)
    port = free_port()
    content = question(tokens=1, stream=False)
    rates, costs, direct = [], [], []
    async with running_proxy(key, port) as pid, _standin(key, port):
        headers = {"c2l-assertion": _assertion(key, CLIENT)}
        target = Target.at("proxy", f"http://127.0.0.1:{port}/ollama/api/chat", content, headers)
        await _await_bridge(target)
        for _ in range(bench.rounds(ROUNDS)):
            meter = CpuMeter({"proxy": [pid]})
            rate, requests = await _measure(target, bench.seconds(6))
            rates.append(rate)
            costs.append(meter.seconds()["proxy"] / requests * 1e6)
            engine = Target.at("direct", bench.engine.url + "/api/chat", content)
            direct.append((await _measure(engine, bench.seconds(3)))[0])
    note = f"proxy bound to one core, {median(costs):.0f} us of it a request; baseline: the demo engine alone"
    return [Result("requests_per_second", median(rates), "1/s", median(direct), BAR, at_least=True, note=note)]


async def _measure(target: Target, seconds: float) -> tuple[float, int]:
    job = Job("closed", (target,), count=AT_ONCE, seconds=seconds, warmup=0.5)
    outcome = await in_process(job, core=REST_CORE if (os.cpu_count() or 1) > 1 else None)
    if outcome.errors:
        raise RuntimeError(f"expected no errors, got {outcome.errors[:3]}")
    # The warm-up's requests cost the proxy as well.
    return outcome.requests / outcome.seconds, int(outcome.requests * (seconds + job.warmup) / seconds)


def _assertion(key: bytes, kind: str) -> str:
    now = int(time.time())
    claims = Assertion(INSTANCE, USER, kind, USER, now, now + 3600, (USER,) if kind == CLIENT else ())
    return mint(claims, key)


async def _await_bridge(target: Target) -> None:
    client = await Client.connect(target)
    status, content = await client.fetch(target.message)
    client.close()
    if status != 200:
        raise RuntimeError(f"expected the stand-in to answer through the proxy, got {status}: {content[:300]!r}")


@contextlib.asynccontextmanager
async def running_proxy(key: bytes, port: int) -> AsyncIterator[int]:
    environ = {
        **os.environ,
        "C2L_PROXY_INSTANCE": INSTANCE,
        "C2L_PROXY_KEY": key.hex(),
        "C2L_PROXY_LISTEN": f"127.0.0.1:{port}",
    }
    command = ["-m", "bench.lone_proxy"]
    async with _bound(PROXY_CORE, command, environ, b"") as process:
        for _ in range(200):
            with contextlib.suppress(OSError):
                (await Client.connect(Target("probe", port=port))).close()
                break
            await asyncio.sleep(0.05)
        yield process.pid


@contextlib.asynccontextmanager
async def _standin(key: bytes, port: int) -> AsyncIterator[None]:
    job = {"url": f"ws://127.0.0.1:{port}/ws/tunnel", "assertion": _assertion(key, BRIDGE)}
    content = json.dumps(job).encode() + b"\n"
    async with _bound(REST_CORE, ["-m", "bench.standin_bridge"], dict(os.environ), content):
        yield


@contextlib.asynccontextmanager
async def _bound(
    core: int, command: list[str], environ: dict[str, str], content: bytes
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python program on one core. `taskset` replaces itself by it, so the process id is the program's."""
    prefix = ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []
    process = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, *command, cwd=ROOT, env=environ, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if process.stdin is not None:
        process.stdin.write(content)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
