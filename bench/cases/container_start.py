"""A user's container: from the API's question to the manager until it answers, cold, from the warm pool, and with 100
users at once; and what each costs in memory while 200 are live. The baseline is the process driver in the same run.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.support.docker_engine import docker, docker_is_there
from tests.support.eventually import eventually
from tests.support.manager_service import FORKSERVER, Manager, manager
from tests.support.short_folder import short_folder

from bench.case import Bench
from bench.measure import MEGABYTE, pss_of, tree
from bench.report import Result, median, percentile
from cloudtolocalllm.api.manager_client import ManagerClient, ManagerError
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.runtime.settings import environment

ROUNDS = 15
AT_ONCE = 100
LIVE = int(environment().get("C2L_BENCH_CONTAINERS", "200"))
"""Containers for the figure of memory."""
COLD_BAR, WARM_BAR = 0.6, 0.1
"""Seconds."""
MEMORY_BAR = 20.0
"""Megabytes."""
SETTLE = 2.0
"""Seconds between the last start and the look at the memory."""
WITHIN = 60.0
IMAGE = "cloudtolocalllm/streaming-proxy:bench"
QUIET = ("sh", "-c", 'exec "$0" "$@" >/dev/null', *FORKSERVER)
"""Without a line in the log for each of hundreds of proxies that end."""
_BUILD = ("build", "-q", "--network", "host", "-f", "deploy/images/streaming-proxy/Dockerfile", "-t", IMAGE, ".")


@dataclass(slots=True)
class Figures:
    """One driver's; seconds and bytes."""

    cold: float = 0.0
    warm: float = 0.0
    served: int = 0
    last: float = 0.0
    middle: float = 0.0
    memory: float = 0.0
    parts: str = ""
    """What the memory is made of."""


async def run(bench: Bench) -> list[Result]:
    """Measure both drivers; nothing where there is no engine."""
    if not docker_is_there():
        print("  no Docker engine, or none with the base images: not measured")
        return []
    await asyncio.to_thread(docker, *_BUILD, timeout=300)
    try:
        process = await _figures(bench, "process")
        container = await _figures(bench, "docker")
    finally:
        await asyncio.to_thread(docker, "rmi", IMAGE, check=False)
    note = "baseline: the process driver"
    return [
        Result("container_start_cold", container.cold, "s", process.cold, COLD_BAR, note=f"p50; {note}"),
        Result("container_start_warm", container.warm, "s", process.warm, WARM_BAR, note=f"p50; {note}"),
        Result(
            "container_start_100.served", container.served, "users", process.served, AT_ONCE, at_least=True,
            note=f"of {AT_ONCE} at once; {note}",
        ),
        Result("container_start_100", container.last, "s", process.last, note=f"until all are served; {note}"),
        Result("container_start_100.p50", container.middle, "s", process.middle, note=note),
        Result(
            "container_memory_per_user", container.memory / MEGABYTE, "MB", process.memory / MEGABYTE, MEMORY_BAR,
            note=f"{_live(bench)} live, idle: {container.parts}; {note}",
        ),
    ]  # fmt: skip


def _live(bench: Bench) -> int:
    return max(AT_ONCE, LIVE // 2) if bench.quick else LIVE


async def _figures(bench: Bench, driver: str) -> Figures:
    found = Figures()
    async with _asking(driver, warm=0) as (client, _):
        found.cold = median([await _ensure(client) for _ in range(bench.rounds(ROUNDS))])
    async with _asking(driver, warm=3) as (client, _):
        seconds = []
        for _ in range(bench.rounds(ROUNDS)):
            await _spare(client)
            seconds.append(await _ensure(client))
        found.warm = median(seconds)
    engine = _engine()
    before = pss_of(engine)
    async with _asking(driver, warm=0) as (client, made):
        outcomes = await asyncio.gather(*(_ensure(client) for _ in range(AT_ONCE)), return_exceptions=True)
        seconds = [one for one in outcomes if isinstance(one, float)]
        print("  refused:", *{repr(one) for one in outcomes if not isinstance(one, float)} or {"none"})
        found.served, found.last, found.middle = len(seconds), max(seconds), percentile(seconds, 50)
        rest = _live(bench) - AT_ONCE
        for _ in range(0, rest, 20):
            await asyncio.gather(*(_ensure(client) for _ in range(20)))
        await asyncio.sleep(SETTLE)
        ids = [one.id for one in await client.list_instances()]
        if driver == "process":
            found.memory = pss_of(_pids(made, ids)) / len(ids)
        else:
            found.memory, found.parts = _cost(ids, pss_of(engine) - before)
    return found


async def _ensure(client: ManagerClient) -> float:
    """Ask as the API does for a user who has no proxy; return the seconds until there is one."""
    began = time.monotonic()
    await client.ensure("u" + secrets.token_hex(6))
    return time.monotonic() - began


async def _spare(client: ManagerClient) -> None:
    async def spares() -> int:
        return int((await client.stats())["warm"])

    await eventually(spares, bool, within=WITHIN)


def _pids(made: Manager, ids: Iterable[str]) -> list[int]:
    folder = made.settings.run_dir / "proxies"
    return [int(json.loads((folder / one / "instance.json").read_text())["pid"]) for one in ids]


def _engine() -> list[int]:
    """The daemons that all containers share."""
    names = ("dockerd", "containerd")
    return [one.pid for one in psutil.process_iter(["name"]) if one.info["name"] in names]


def _cost(ids: list[str], daemons: int) -> tuple[float, str]:
    """Return the bytes that one user costs, and of what.

    What the kernel charges the container (its processes and init, their page tables, sockets and file cache), its
    shim, which runs outside of it, and by how much the engine's daemons grew.
    """
    text = docker("inspect", "-f", "{{.State.Pid}}", *(specs.container_name(one) for one in ids))
    containers, shims, pss = 0, set(), 0
    for pid in map(int, text.split()):
        containers += _charged(pid)
        pss += pss_of(tree(pid))
        parent = psutil.Process(pid).parent()
        if parent is not None and parent.pid != 1:
            shims.add(parent.pid)
    outside = pss_of(shims)
    count = len(ids)
    parts = (
        f"cgroup {containers / count / MEGABYTE:.1f} (PSS {pss / count / MEGABYTE:.1f}) + shim "
        f"{outside / count / MEGABYTE:.1f} + daemons {daemons / count / MEGABYTE:.1f} MB"
    )
    return (containers + outside + daemons) / count, parts


def _charged(pid: int) -> int:
    """Return the bytes of memory that the kernel charges a process's control group, version 1 or 2 (cgroups(7))."""
    top = Path("/sys/fs/cgroup")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        found = {
            "memory": top / "memory" / group[1:] / "memory.usage_in_bytes",
            "": top / group[1:] / "memory.current",
        }.get(controllers)
        if found is not None and found.exists():
            return int(found.read_text())
    raise RuntimeError("expected the control group of a container, but there is none below /sys/fs/cgroup")


@contextlib.asynccontextmanager
async def _asking(driver: str, *, warm: int) -> AsyncIterator[tuple[ManagerClient, Manager]]:
    """Run a manager and the API's client of it; nothing of its proxies is left at the end."""
    changes = {
        "driver": driver, "warm": warm, "image": IMAGE, "poll_interval": 1e6, "stop_grace": 1.0, "forkserver": QUIET,
    }  # fmt: skip
    with short_folder() as folder:
        async with manager(folder, **changes) as made:
            client = ManagerClient(made.settings.listen, lambda: made.tokens.mint("manager"))
            try:
                yield client, made
            finally:
                await _end(client)
                await client.close()


async def _end(client: ManagerClient) -> None:
    """Before the manager's own end, whose time is too short for hundreds of containers on two processors."""
    slots = asyncio.Semaphore(8)

    async def end(user: str) -> None:
        async with slots:
            with contextlib.suppress(ManagerError):  # the manager's end removes it then
                await client.remove(user)

    await asyncio.gather(*(end(one.user) for one in await client.list_instances() if one.user is not None))
