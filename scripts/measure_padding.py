"""Prints what a relay sees of sealed streams, and what padding costs: the tables of docs/reference/sealed-format.md.

python -m scripts.measure_padding [--observe]

Nothing is measured in time; all follows from seeds. With --observe, which takes minutes, the second table too.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from tests.support.observer import PAIRS, Draw, Trace, observe, plain, poisson, said, sealed

CASES = (
    ("Ollama", 5.0), ("Ollama", 30.0), ("Ollama", 100.0), ("home API", 30.0), ("OpenAI", 5.0), ("OpenAI", 30.0),
    ("OpenAI", 100.0),
)  # fmt: skip
TOKENS = 600
ANSWERS = 20
KNOWN = 200
"""Answers of each kind that the observer knows, and is asked about."""


def _draw(chance: random.Random) -> str:
    return "x" * chance.randint(1, 24)


def sizes(family: str, per_second: float, draw: Draw = _draw) -> str:
    """Return a row of the first table."""
    chance = random.Random(f"{family} {per_second}")
    before, after, common, relative, rate = [], [], [], [], []
    for _ in range(ANSWERS):
        answer = said(family, poisson(per_second, TOKENS, chance), draw, chance)
        passed = _chunks(sealed(answer))
        before.append(len({size for _, size in plain(answer)}))
        after.append(len(set(passed)))
        common.append(Counter(passed).most_common(1)[0][1] / len(passed))
        relative.append(sum(passed) / answer.size)
        rate.append(sum(passed) / answer.events[-1][0] / 1000)
    shown = f"{min(after)}" if min(after) == max(after) else f"{min(after)} to {max(after)}"
    return (
        f"| {family}, {per_second:.0f} tokens/s | {max(before)} | {shown} | {fmean(common):.1%} | "
        f"{fmean(relative):.1f} | {fmean(rate):.0f} |"
    )


def _chunks(trace: Trace) -> Sequence[int]:
    """Return the chunks' sizes; the first piece begins with a nonce, the last one's length takes a byte less."""
    (_, first), *middle, (_, last) = trace
    return [first - 16, *(size for _, size in middle), last + 1]


def observed(family: str, per_second: float, pair: str) -> str:
    """Return a row of the second table."""
    in_clear, kept = (observe(family, pair, per_second, passes, count=KNOWN) for passes in (plain, sealed))
    cells = [f"{each.share:.0%}" for each in (*in_clear.values(), *kept.values())]
    return f"| {family}, {per_second:.0f} tokens/s, {pair} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observe", action="store_true", help="have the observer guess, too")
    options = parser.parse_args()
    print(f"{TOKENS} tokens of 1 to 24 characters, Poisson arrivals, {ANSWERS} answers")
    print("| stream | sizes in clear | sizes sealed | of the commonest size | relative to content | kB/s |")
    for family, per_second in CASES:
        print(sizes(family, per_second))
    if options.observe:
        print(f"\n{2 * KNOWN} answers after {2 * KNOWN} known ones; by neighbours and by one bound: clear, sealed")
        for family, per_second in CASES:
            for pair in PAIRS:
                print(observed(family, per_second, pair))


if __name__ == "__main__":
    main()
