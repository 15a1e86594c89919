"""`python -m bench`: measure, print a table, write bench/results/latest.json."""

import argparse
import asyncio
import sys
import time
import traceback
from pathlib import Path

from bench.case import Bench, Case, bench
from bench.cases import CASES, ON_REQUEST
from bench.report import Result, table, write

LATEST = Path(__file__).parent / "results" / "latest.json"


def main() -> int:
    """Run the cases that are asked for; the exit status is 1 when one could not be measured."""
    options = _parser().parse_args()
    every = {**CASES, **ON_REQUEST}
    chosen = {name: every[name] for name in options.only} if options.only else CASES
    with bench(quick=options.quick) as shared:
        for note in shared.missing:
            print(note)
        results, failed = asyncio.run(_run(shared, chosen))
    write(results, options.output)
    print()
    print(table(results))
    print(f"\nwritten to {options.output}")
    for name in failed:
        print(f"not measured: {name}")
    missed = [result.name for result in results if result.ok is False]
    return 1 if failed or (options.strict and missed) else 0


async def _run(shared: Bench, chosen: dict[str, Case]) -> tuple[list[Result], list[str]]:
    results: list[Result] = []
    failed: list[str] = []
    for name, case in chosen.items():
        print(f"{name} …", flush=True)
        began = time.monotonic()
        try:
            found = await case(shared)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        results += found
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return results, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure side by side.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; the figures are rough")
    parser.add_argument(
        "--only", action="append", default=[], choices=[*CASES, *ON_REQUEST], metavar="NAME",
        help="one case; may be repeated: " + ", ".join([*CASES, *ON_REQUEST]),
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=LATEST, help="where the results are written (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
