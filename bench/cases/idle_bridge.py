"""What a bridge that only holds its control connection costs the API in memory."""

import asyncio

from bench.case import Bench
from bench.measure import pss
from bench.platform import bridges, make_users, platform
from bench.report import Result

BRIDGES = 500
BAR = 20.0
"""Kilobytes."""


async def run(bench: Bench) -> list[Result]:
    """Measure the API's growth; some bridges first, so that what all share is there already."""
    with platform(bench.engine, "--warm", "0") as stack:
        first, rest = make_users(stack, 20), make_users(stack, BRIDGES)
        api = stack.processes()["api"].pid
        async with bridges(stack.url, bench.engine, first, idle=True):
            await asyncio.sleep(1)
            before = pss(api)
            async with bridges(stack.url, bench.engine, rest, idle=True):
                await asyncio.sleep(1)
                growth = pss(api) - before
    note = f"PSS growth of the API with {BRIDGES} control connections"
    return [Result("memory_per_idle_bridge", growth / BRIDGES / 1024, "KB", bar=BAR, note=note)]
