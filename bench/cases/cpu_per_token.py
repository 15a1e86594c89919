"""Processor time that the cloud side spends on each token: 100 streams of 30 tokens a second."""

from collections.abc import Mapping

import psutil

from bench.case import Bench
from bench.http import Target
from bench.load import Job, in_process
from bench.measure import CpuMeter
from bench.platform import chat, stamped
from bench.report import Result, median

STREAMS = 100
PACE = 30.0
ROUNDS = 3
BAR = 40.0
"""Microseconds over all hops of the cloud but nginx, or the edge in its place."""


async def run(bench: Bench) -> list[Result]:
    """Measure our hops, and nginx's for comparison, in turn."""
    content = stamped(PACE)
    through = chat(bench.stack, bench.stack.api_key, content)
    await in_process(Job("streams", (through,), count=1, seconds=1.0))  # the proxy must exist to be measured
    groups = groups_of(bench.stack.processes())
    rows: list[dict[str, float]] = []
    nginx: list[float] = []
    for _ in range(bench.rounds(ROUNDS)):
        rows.append(await _measure(through, groups, bench.seconds(9)))
        if (peer := bench.peers.get("nginx")) is not None:
            target = Target.at("nginx", peer.url + "/api/chat", content)
            nginx.append((await _measure(target, {"nginx": peer.pids}, bench.seconds(9)))["nginx"])
    each = {name: median(row[name] for row in rows) for name in groups}
    cloud = median(row["proxy"] + row["api"] for row in rows)
    note = "all hops but the edge, in nginx's place: proxy {proxy:.0f}, api {api:.0f}; baseline: nginx".format(**each)
    baseline = median(nginx) if nginx else None
    edge_note = "the embedded edge, which also splices the tunnel; baseline: nginx" if nginx else "the embedded edge"
    return [
        Result("cloud_cpu_per_token", cloud, "us", baseline, BAR, note=note),
        Result("edge_cpu_per_token", each["edge"], "us", baseline, None, note=edge_note),
        Result("bridge_cpu_per_token", each["bridge"], "us", None, None, note="at home"),
    ]


def groups_of(processes: Mapping[str, psutil.Process]) -> dict[str, list[int]]:
    """Return the platform's process ids by part; all proxies are one part."""
    groups: dict[str, list[int]] = {"edge": [], "proxy": [], "api": [], "bridge": [], "manager": []}
    for name, process in processes.items():
        part = "proxy" if name.startswith("px-") else name
        if part in groups:
            groups[part].append(process.pid)
    return groups


async def _measure(target: Target, groups: dict[str, list[int]], seconds: float) -> dict[str, float]:
    meter = CpuMeter(groups)
    outcome = await in_process(Job("streams", (target,), count=STREAMS, seconds=seconds, ramp=1.0))
    if outcome.errors:
        raise RuntimeError(f"expected no errors, got {outcome.errors[:3]}")
    return {name: spent / outcome.tokens * 1e6 for name, spent in meter.seconds().items()}
