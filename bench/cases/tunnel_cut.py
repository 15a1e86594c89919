"""The bridge's connection is cut in the middle of an answer, again and again."""

import asyncio

from tests.support.fault_proxy import FaultProxy

from bench.case import Bench
from bench.engines import question
from bench.http import Target
from bench.load import Job, Outcome, in_process
from bench.platform import bridges, chat, direct, make_users, platform
from bench.report import Result

PACE = 50.0
TOKENS = 500
CUTS = 10
BAR = 2000.0
"""Milliseconds."""


async def run(bench: Bench) -> list[Result]:
    """Compare the text with the engine's own, and find the longest gap."""
    content = question(pace=PACE, tokens=TOKENS)
    with platform(bench.engine) as stack:
        (user,) = make_users(stack, 1)
        async with (
            FaultProxy("127.0.0.1", stack.port) as fault,
            bridges(f"http://127.0.0.1:{fault.port}", bench.engine, [user]),
        ):
            target = chat(stack, user.api_key, content)
            load = asyncio.ensure_future(_answer(target))
            await asyncio.sleep(1)
            cut = 0
            for i in range(CUTS):
                await asyncio.sleep(TOKENS / PACE * 0.8 / CUTS)
                cut += fault.cut("rst" if i % 2 else "fin")
            through = await load
    own = await _answer(direct(bench.engine, content))
    if cut < CUTS:
        raise RuntimeError(f"expected at least {CUTS} connections to be cut, got {cut}")
    identical = through.texts == own.texts and through.tokens == own.tokens
    pace = 1000 / PACE
    note = f"{CUTS} times in one answer; the pace is taken off; baseline: no cut"
    return [
        Result("tunnel_cut_gap", through.longest_gap - pace, "ms", max(0.0, own.longest_gap - pace), BAR, note=note),
        Result("tunnel_cut_text_identical", float(identical), "", 1.0, 1.0, at_least=True, note="1: byte for byte"),
    ]


async def _answer(target: Target) -> Outcome:
    outcome = await in_process(Job("streams", (target,), count=1, texts=True))
    if outcome.errors:
        raise RuntimeError(f"expected a whole answer, got {outcome.errors}")
    return outcome
