"""A thousand users, each with a bridge and a running stream, for two minutes on one machine."""

import asyncio
import resource

from tests.support.stack import Stack

from bench.case import Bench
from bench.cases.cpu_per_token import groups_of
from bench.http import Target
from bench.load import Job, Outcome, in_processes
from bench.measure import MEGABYTE, CpuMeter, pss_of
from bench.platform import User, bridges, chat, direct, make_users, platform, stamped
from bench.report import Result, percentile

USERS = 1000
PACE = 10.0
SECONDS = 120.0
RAMP = 30.0
WARMUP = 5.0
GENERATORS = 2
BRIDGE_PROCESSES = 4
P99_AIM = 100.0
"""Milliseconds."""


async def run(bench: Bench) -> list[Result]:
    """Connect all bridges, open all streams, and measure once all run."""
    _more_files()
    count = 100 if bench.quick else USERS
    own = await _load([direct(bench.engine, stamped(PACE))] * count, seconds=10.0)
    with platform(bench.engine, "--warm", "1") as stack:
        users = make_users(stack, count)
        async with bridges(stack.url, bench.engine, users, processes=BRIDGE_PROCESSES) as bridge_pids:
            print(f"  {count} bridges are connected", flush=True)
            load = asyncio.ensure_future(_through(bench, stack, users))
            await asyncio.sleep(RAMP + WARMUP)
            pids = [instance["pid"] for instance in stack.instances() if instance["user"]]
            parts = groups_of(stack.processes())
            parts["proxy"], parts["bridge"], parts["engine"] = pids, bridge_pids, [bench.engine.pid]
            spent, tokens = await _rate(parts, bench)
            memory = pss_of(pids) / max(1, len(pids))
            outcome = await load
    return _results(outcome, own, spent, tokens, memory)


async def _through(bench: Bench, stack: Stack, users: list[User]) -> Outcome:
    targets = [chat(stack, user.api_key, stamped(PACE)) for user in users]
    return await _load(targets, seconds=bench.seconds(SECONDS))


async def _load(targets: list[Target], seconds: float) -> Outcome:
    jobs = []
    for part in range(GENERATORS):
        own = tuple(targets[part::GENERATORS])
        jobs.append(Job("streams", own, count=len(own), seconds=seconds, warmup=WARMUP, ramp=RAMP))
    return await in_processes(jobs)


async def _rate(parts: dict[str, list[int]], bench: Bench) -> tuple[dict[str, float], float]:
    """Return the processor time of each part over a while, and how many tokens went through meanwhile."""
    seconds = bench.seconds(SECONDS) * 0.6
    meter = CpuMeter(parts)
    await asyncio.sleep(seconds)
    return meter.seconds(), seconds


def _results(outcome: Outcome, own: Outcome, spent: dict[str, float], seconds: float, memory: float) -> list[Result]:
    rate = outcome.tokens / max(1.0, outcome.seconds - RAMP / 2)
    each = {name: cpu / (rate * seconds) * 1e6 for name, cpu in spent.items()}
    cloud = sum(each[name] for name in ("edge", "proxy", "api"))
    for error in outcome.errors[:5]:
        print(f"  {error}")
    note = ", ".join(f"{name} {value:.0f}" for name, value in each.items())
    return [
        Result("thousand_users_errors", len(outcome.errors), "", bar=0.0, note=f"{outcome.requests} streams"),
        Result("thousand_users_token_rate", rate, "1/s", outcome.requests * PACE, note="baseline: nominal"),
        *(_added(outcome, own, percent) for percent in (50, 99)),
        Result("thousand_users_memory_per_user", memory / MEGABYTE, "MB", bar=4.0, note="PSS of each proxy"),
        Result("thousand_users_cloud_cpu_per_token", cloud, "us", bar=40.0, note=note),
    ]


def _added(outcome: Outcome, own: Outcome, percent: int) -> Result:
    base = percentile(own.latencies, percent)
    added = percentile(outcome.latencies, percent) - base if outcome.latencies else float("inf")
    bar = P99_AIM if percent == 99 else None
    return Result(f"thousand_users_added_latency_p{percent}", added, "ms", base, bar, note="baseline: direct")


def _more_files() -> None:
    """The generators and bridges inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
