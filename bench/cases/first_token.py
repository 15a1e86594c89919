"""How much later the first token of an answer arrives than from the engine directly, everything warm."""

from bench.case import Bench
from bench.http import Target
from bench.load import Job, in_process
from bench.platform import chat, direct, stamped
from bench.report import Result, median, percentile

REQUESTS = 200
ROUNDS = 3
BAR = 3.0
"""Milliseconds."""


async def run(bench: Bench) -> list[Result]:
    """Ask one after the other, each way in turn."""
    content = stamped(0, tokens=2)
    targets = [direct(bench.engine, content), chat(bench.stack, bench.stack.api_key, content)]
    targets += [Target.at(name, peer.url + "/api/chat", content) for name, peer in bench.peers.items()]
    medians: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(bench.rounds(ROUNDS)):
        outcome = await in_process(Job("sequential", tuple(targets), count=REQUESTS))
        if outcome.errors:
            raise RuntimeError(f"expected no errors, got {outcome.errors[:3]}")
        for name, values in outcome.first.items():
            medians[name].append(percentile(values, 50))
    results = []
    for name, values in medians.items():
        if name == "direct":
            continue
        added = median(there - here for there, here in zip(values, medians["direct"], strict=True))
        ours = name == "through"
        results.append(
            Result(
                name="first_token_added_p50" + ("" if ours else f".{name}"),
                value=added,
                unit="ms",
                baseline=median(medians["direct"]),
                bar=BAR if ours else None,
                note="added to the engine's own, which is the baseline",
            )
        )
    return results
