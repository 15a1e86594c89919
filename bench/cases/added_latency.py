"""How much later a token arrives than from the engine directly: 100 streams of 30 tokens a second."""

from bench.case import Bench
from bench.http import Target
from bench.load import Job, Outcome, in_process
from bench.platform import chat, direct, stamped
from bench.report import Result, median, percentile

STREAMS = 100
PACE = 30.0
ROUNDS = 6
BARS = {50: 0.5, 99: 5.0}
"""Milliseconds by percentile."""


async def run(bench: Bench) -> list[Result]:
    """Measure all ways in turn, several times over, so that what else the machine does hits all alike."""
    content = stamped(PACE)
    ways = {"direct": direct(bench.engine, content), "through": chat(bench.stack, bench.stack.api_key, content)}
    ways |= {name: Target.at(name, peer.url + "/api/chat", content) for name, peer in bench.peers.items()}
    figures: dict[str, dict[int, list[float]]] = {name: {p: [] for p in BARS} for name in ways}
    for _ in range(bench.rounds(ROUNDS)):
        for name, target in ways.items():
            outcome = await _round(target, bench.seconds(6))
            for percent, values in figures[name].items():
                values.append(percentile(outcome.latencies, percent))
    results = []
    for name in ways:
        if name != "direct":
            results += [_result(name, percent, figures) for percent in BARS]
    return results


async def _round(target: Target, seconds: float) -> Outcome:
    job = Job("streams", (target,), count=STREAMS, seconds=seconds, warmup=0.5, ramp=1.0)
    outcome = await in_process(job)
    if outcome.errors or not outcome.latencies:
        raise RuntimeError(f"expected {STREAMS} streams without error, got {outcome.errors[:3]}")
    return outcome


def _result(name: str, percent: int, figures: dict[str, dict[int, list[float]]]) -> Result:
    pairs = zip(figures[name][percent], figures["direct"][percent], strict=True)
    added = median(there - here for there, here in pairs)
    ours = name == "through"
    return Result(
        name=f"added_latency_p{percent}" + ("" if ours else f".{name}"),
        value=added,
        unit="ms",
        baseline=median(figures["direct"][percent]),
        bar=BARS[percent] if ours else None,
        note="added to the engine's own, which is the baseline",
    )
