"""Memory of a user's proxy while it relays a stream, as its proportional share, with few users and with many.

What all proxies share counts for each by its share: some 0.4 MB with 50 users, 0.1 with 200.
"""

import asyncio
import secrets

from tests.support.ports import free_port

from bench.case import Bench
from bench.cases.requests_per_second import running_proxy
from bench.load import Job, in_process
from bench.measure import MEGABYTE, pss, pss_of
from bench.platform import bridges, chat, make_users, platform, stamped
from bench.report import Result

FEW = 50
MANY = 200
PACE = 10.0
BAR = 4.0
"""Megabytes."""


async def run(bench: Bench) -> list[Result]:
    """Measure the proxies alone; the fork server whose pages they share is no user's."""
    few, _ = await _measure(bench, FEW)
    many, manager = await _measure(bench, MANY)
    alone = await _alone()
    note = f"PSS, {MANY} proxies; the manager itself {manager:.0f} MB once; baseline: a proxy started by itself, idle"
    return [
        Result("memory_per_active_user", many, "MB", alone, BAR, note=note),
        Result("memory_per_active_user.few", few, "MB", alone, note=f"PSS, {FEW} proxies; baseline: as above"),
    ]


async def _alone() -> float:
    """Return the megabytes of a proxy that was not forked from a loaded parent."""
    async with running_proxy(secrets.token_bytes(32), free_port()) as pid:
        await asyncio.sleep(1.0)
        return pss(pid) / MEGABYTE


async def _measure(bench: Bench, count: int) -> tuple[float, float]:
    """Return the megabytes of one proxy among `count`, and of the manager."""
    with platform(bench.engine, "--warm", "0") as stack:
        users = make_users(stack, count)
        async with bridges(stack.url, bench.engine, users):
            targets = tuple(chat(stack, user.api_key, stamped(PACE)) for user in users)
            ramp = count / 25
            job = Job("streams", targets, count=count, seconds=bench.seconds(9), ramp=ramp)
            load = asyncio.ensure_future(in_process(job))
            await asyncio.sleep(ramp + bench.seconds(9) / 2)
            pids = [instance["pid"] for instance in stack.instances() if instance["user"]]
            memory = pss_of(pids)
            outcome = await load
        if outcome.errors or len(pids) < count:
            raise RuntimeError(f"expected {count} proxies without error, got {len(pids)}, {outcome.errors[:3]}")
        manager = pss_of(process.pid for name, process in stack.processes().items() if name == "manager")
    return memory / len(pids) / MEGABYTE, manager / MEGABYTE
