"""How much memory the hops take when a browser stops reading while the engine goes at full speed."""

import asyncio

from bench.case import Bench
from bench.cases.cpu_per_token import groups_of
from bench.engines import question
from bench.http import Target
from bench.load import Job, in_process
from bench.measure import MEGABYTE, pss_of
from bench.platform import chat
from bench.report import Result

STALL = 6.0
"""Seconds."""
BAR = 1.0
"""Megabytes, all hops together."""
HOPS = ("edge", "proxy", "bridge")


async def run(bench: Bench) -> list[Result]:
    """Stall one stream; what an ordinary one takes was taken before."""
    content = question(tokens=50_000_000, token_bytes=64)
    through = chat(bench.stack, bench.stack.api_key, content)
    await in_process(Job("streams", (through,), count=1, seconds=2.0))
    processes = bench.stack.processes()
    hops = groups_of(processes)
    growths = await _growth(through, {name: hops[name] for name in HOPS})
    baseline = None
    if (peer := bench.peers.get("nginx")) is not None:
        target = Target.at("nginx", peer.url + "/api/chat", content)
        await in_process(Job("streams", (target,), count=1, seconds=2.0))
        baseline = (await _growth(target, {"nginx": peer.pids}))["nginx"]
    each = ", ".join(f"{name} {growth:.2f}" for name, growth in growths.items())
    note = f"PSS growth within {STALL:.0f} s: {each}; baseline: nginx"
    return [Result("stalled_reader_growth", sum(growths.values()), "MB", baseline, BAR, note=note)]


async def _growth(target: Target, groups: dict[str, list[int]]) -> dict[str, float]:
    """Return by how many megabytes each group of processes grew at most."""
    before = {name: pss_of(pids) for name, pids in groups.items()}
    load = asyncio.ensure_future(in_process(Job("streams", (target,), count=1, seconds=STALL + 1, stall=True)))
    most = dict(before)
    for _ in range(int(STALL / 0.5)):
        await asyncio.sleep(0.5)
        most = {name: max(most[name], pss_of(pids)) for name, pids in groups.items()}
    outcome = await load
    if outcome.errors or not outcome.first:
        raise RuntimeError(f"expected a stalled stream, got {outcome.errors[:3]}")
    return {name: (most[name] - before[name]) / MEGABYTE for name in groups}
