"""A user's container: from the request for it until it answers, cold, from the warm pool and with 100 users at once;
and what one costs in memory while it is idle. The baseline is the process driver, asked the same in the same run.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
from tests.support.docker_engine import docker, docker_is_there, proxy_image
from tests.support.link_parts import until

from bench.case import Bench
from bench.measure import MEGABYTE, pss_of, tree
from bench.report import Result, median, percentile
from cloudtolocalllm.manager.drivers.base import Driver
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.driver import DockerDriver
from cloudtolocalllm.manager.drivers.docker.spec import DockerConfig
from cloudtolocalllm.manager.drivers.process import ProcessDriver
from cloudtolocalllm.manager.drivers.process_spec import ProcessConfig
from cloudtolocalllm.manager.policy import PolicyConfig
from cloudtolocalllm.manager.probe import HttpProbe
from cloudtolocalllm.manager.reconciler import Reconciler
from cloudtolocalllm.runtime.clock import SystemClock

ROUNDS = 15
AT_ONCE = 100
LIVE = int(os.environ.get("C2L_BENCH_CONTAINERS", "100"))
"""Containers for the figure of memory; the wanted 200 take two minutes."""
COLD_BAR, WARM_BAR = 0.6, 0.1
"""Seconds."""
MEMORY_BAR = 20.0
"""Megabytes."""
START_TIMEOUT = 60.0
"""Seconds: a hundred that come at once wait for each other."""
SETTLE = 120.0


async def run(bench: Bench) -> list[Result]:
    """Measure both drivers; nothing where there is no engine."""
    if not docker_is_there():
        print("  no Docker engine: not measured")
        return []
    process = await _figures(bench, docker_driver=False)
    container = await _figures(bench, docker_driver=True)
    note = "baseline: the process driver"
    return [
        Result("container_start_cold", container["cold"], "s", process["cold"], COLD_BAR, note=f"p50; {note}"),
        Result("container_start_warm", container["warm"], "s", process["warm"], WARM_BAR, note=f"p50; {note}"),
        Result("container_start_100", container["last"], "s", process["last"], note=f"until all are served; {note}"),
        Result("container_start_100.p50", container["p50"], "s", process["p50"], note=note),
        Result(
            "container_memory_per_user", container["memory"], "MB", process["memory"], MEMORY_BAR,
            note=f"PSS, {LIVE} idle, with the engine's shim and init; {note}",
        ),
    ]  # fmt: skip


async def _figures(bench: Bench, *, docker_driver: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    async with _manager(docker_driver, warm=0) as (reconciler, _):
        found["cold"] = median([await _ensure(reconciler) for _ in range(bench.rounds(ROUNDS))])
    async with _manager(docker_driver, warm=3) as (reconciler, _):
        seconds = []
        for _ in range(bench.rounds(ROUNDS)):
            await until(lambda: _spares(reconciler) >= 1, SETTLE)
            seconds.append(await _ensure(reconciler))
        found["warm"] = median(seconds)
    async with _manager(docker_driver, warm=0) as (reconciler, driver):
        seconds = await asyncio.gather(*(_ensure(reconciler) for _ in range(AT_ONCE)))
        found["last"], found["p50"] = max(seconds), percentile(seconds, 50)
        await asyncio.gather(*(_ensure(reconciler) for _ in range(LIVE - AT_ONCE)))
        await asyncio.sleep(1.0)
        found["memory"] = pss_of(_processes(driver, [entry.id for entry in reconciler.table])) / MEGABYTE / LIVE
    return found


async def _ensure(reconciler: Reconciler) -> float:
    began = time.monotonic()
    await reconciler.ensure("u" + secrets.token_hex(6))
    return time.monotonic() - began


def _spares(reconciler: Reconciler) -> int:
    return sum(entry.user is None and entry.state.value == "ready" for entry in reconciler.table)


def _processes(driver: Driver, instances: list[str]) -> list[int]:
    """All that runs for these instances alone: of a container also its init and its shim."""
    if isinstance(driver, ProcessDriver):
        return [pid for one in instances if (pid := driver.process_id(one)) is not None]
    names = [specs.container_name(one) for one in instances]
    pids = [int(pid) for pid in docker("inspect", "-f", "{{.State.Pid}}", *names).split()]
    shims = {parent.pid for pid in pids if (parent := psutil.Process(pid).parent()) is not None and parent.pid != 1}
    return [*shims, *(one for pid in pids for one in tree(pid))]


@contextlib.asynccontextmanager
async def _manager(docker_driver: bool, *, warm: int) -> AsyncIterator[tuple[Reconciler, Driver]]:
    folder = Path(tempfile.mkdtemp(prefix="c2l-"))
    probe, clock = HttpProbe(), SystemClock()
    driver: Driver
    if docker_driver:
        image = await asyncio.to_thread(proxy_image)
        driver = DockerDriver(DockerConfig(folder, image=image), probe, clock)
    else:
        driver = ProcessDriver(ProcessConfig(folder, (sys.executable, "-m", "cloudtolocalllm.cli.forkserver")), probe)
    policy = PolicyConfig(warm=warm, start_timeout=START_TIMEOUT)
    reconciler = Reconciler(driver, probe, clock, policy, stop_grace=1.0, poll_interval=1e6)
    stop = asyncio.Event()
    task = asyncio.ensure_future(reconciler.run(stop))
    try:
        await until(lambda: reconciler.ready or task.done(), SETTLE)
        yield reconciler, driver
    finally:
        # Before the reconciler's own end, whose time is too short for hundreds of containers on two processors.
        slots = asyncio.Semaphore(8)

        async def end(user: str) -> None:
            async with slots:
                await reconciler.remove(user)

        await asyncio.gather(*(end(entry.user) for entry in reconciler.table if entry.user), return_exceptions=True)
        stop.set()
        await task
        shutil.rmtree(folder, ignore_errors=True)
