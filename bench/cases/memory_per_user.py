"""Memory of a user's proxy while it relays a stream, as its proportional share: 50 users at once."""

import asyncio

from bench.case import Bench
from bench.load import Job, in_process
from bench.measure import pss_of
from bench.platform import bridges, chat, make_users, platform, stamped
from bench.report import Result

USERS = 50
PACE = 10.0
BAR = 4.0
"""Megabytes."""
MEGABYTE = 1024 * 1024


async def run(bench: Bench) -> list[Result]:
    """Measure the proxies alone; the fork server whose pages they share is no user's."""
    with platform(bench.engine, "--warm", "0") as stack:
        users = make_users(stack, USERS)
        async with bridges(stack.url, bench.engine, users):
            targets = tuple(chat(stack, user.api_key, stamped(PACE)) for user in users)
            job = Job("streams", targets, count=USERS, seconds=bench.seconds(9), ramp=2.0)
            load = asyncio.ensure_future(in_process(job))
            await asyncio.sleep(2.0 + bench.seconds(9) / 2)
            pids = [instance["pid"] for instance in stack.instances() if instance["user"]]
            memory = pss_of(pids)
            outcome = await load
        if outcome.errors or len(pids) < USERS:
            raise RuntimeError(f"expected {USERS} proxies without error, got {len(pids)}, {outcome.errors[:3]}")
        idle = pss_of(process.pid for name, process in stack.processes().items() if name == "manager")
    note = f"PSS, {USERS} proxies; the manager itself {idle / MEGABYTE:.0f} MB once"
    return [Result("memory_per_active_user", memory / len(pids) / MEGABYTE, "MB", bar=BAR, note=note)]
