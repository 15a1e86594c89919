"""From a request to the first token when the user has no proxy yet: taken from the warm pool, or forked for it."""

from bench.case import Bench
from bench.load import Job, in_process
from bench.platform import bridges, chat, direct, make_users, platform, stamped
from bench.report import Result, percentile

USERS = 20
WARM_BAR, COLD_BAR = 0.1, 0.3
"""Seconds."""


async def run(bench: Bench) -> list[Result]:
    """Ask for each user once."""
    warm = await _measure(bench, USERS)
    cold = await _measure(bench, 0)
    own = await in_process(Job("sequential", (direct(bench.engine, stamped(0, tokens=2)),), count=USERS))
    baseline = percentile(own.first["direct"], 50) / 1000
    note = f"p50 of {USERS} users; the bridge is woken and dials its tunnel; baseline: the engine directly"
    return [
        Result("first_answer_warm_pool", warm, "s", baseline, WARM_BAR, note=note),
        Result("first_answer_cold", cold, "s", baseline, COLD_BAR, note=note),
    ]


async def _measure(bench: Bench, warm: int) -> float:
    with platform(bench.engine, "--warm", str(warm)) as stack:
        users = make_users(stack, USERS)
        async with bridges(stack.url, bench.engine, users):
            content = stamped(0, tokens=2)
            targets = tuple(chat(stack, user.api_key, content) for user in users)
            outcome = await in_process(Job("sequential", targets, count=1))
    if outcome.errors:
        raise RuntimeError(f"expected no errors, got {outcome.errors[:3]}")
    return percentile(outcome.first["through"], 50) / 1000
