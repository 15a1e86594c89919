"""Decisions about requests on the data path: how many a second one core of the API makes."""

from bench.case import Bench
from bench.http import Target
from bench.load import Job, in_process
from bench.measure import CpuMeter
from bench.platform import bridges, make_users, platform
from bench.report import Result, median

AT_ONCE = 8
USERS = 20
ROUNDS = 3
BAR = 3000.0


async def run(bench: Bench) -> list[Result]:
    """Measure the API on its own socket; the baseline is its route that does nothing."""
    rates, idle = [], []
    with platform(bench.engine, "--warm", "0") as stack:
        users = make_users(stack, USERS)
        api = stack.processes()["api"].pid
        unix = str(stack.run_dir / "api.sock")
        questions = tuple(
            Target(
                f"user-{number}",
                unix=unix,
                path="/internal/authorize",
                headers={
                    "x-original-method": "POST",
                    "x-original-uri": "/v1/chat/completions",
                    "x-original-host": f"127.0.0.1:{stack.port}",
                    "authorization": f"Bearer {user.api_key}",
                    "x-request-id": f"bench-{number}",
                },
            )
            for number, user in enumerate(users)
        )
        async with bridges(stack.url, bench.engine, users, idle=True):
            for _ in range(bench.rounds(ROUNDS)):
                rates.append(await _rate(questions, api, bench.seconds(4)))
                idle.append(await _rate((Target("healthz", unix=unix, path="/healthz"),), api, bench.seconds(2)))
    note = "a second of the API's own processor time; baseline: its /healthz, through the framework"
    return [Result("authorize_per_second", median(rates), "1/s", median(idle), BAR, at_least=True, note=note)]


async def _rate(targets: tuple[Target, ...], api: int, seconds: float) -> float:
    job = Job("closed", targets, count=AT_ONCE, seconds=seconds, warmup=0.5)
    meter = CpuMeter({"api": [api]})
    outcome = await in_process(job)
    if outcome.errors:
        raise RuntimeError(f"expected no errors, got {outcome.errors[:3]}")
    # The warm-up's requests cost the API as well.
    return outcome.requests * (seconds + job.warmup) / seconds / meter.seconds()["api"]
