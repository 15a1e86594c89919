"""Results: what is written to latest.json, and the table on the terminal."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """One figure."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    """The same figure of what it is compared with, from the same run; None where there is nothing."""
    bar: float | None = None
    """What it must hold; None for figures that only inform."""
    at_least: bool = False
    """Whether the bar is a lower bound."""
    note: str = ""
    """For the table: what the baseline is, and parts of the figure."""

    @property
    def ratio(self) -> float | None:
        """Value over baseline; None without one."""
        return self.value / self.baseline if self.baseline else None

    @property
    def ok(self) -> bool | None:
        """Whether the bar is held; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "baseline": None if self.baseline is None else _rounded(self.baseline),
            "ratio": None if self.ratio is None else _rounded(self.ratio),
            "bar": self.bar,
            "ok": self.ok,
        }


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest rank; `values` need not be sorted.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("expected at least one value")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def write(results: Sequence[Result], path: Path) -> None:
    """Write the results; those of names that are not among them stay as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = {result.name: result.to_json() for result in results}
    kept = json.loads(path.read_text()) if path.exists() else []
    merged = [value for value in kept if value["name"] not in fresh] + list(fresh.values())
    path.write_text(json.dumps(merged, indent=1) + "\n")


def table(results: Sequence[Result]) -> str:
    """Return the results as a table for a terminal."""
    head = ("figure", "value", "unit", "baseline", "ratio", "bar", "", "note")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(widths)))]
        cells[2] = row[2].ljust(widths[2])
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    bar = "" if result.bar is None else f"{'>=' if result.at_least else '<='} {_shown(result.bar)}"
    verdict = {None: "", True: "ok", False: "MISSED"}[result.ok]
    baseline = "" if result.baseline is None else _shown(result.baseline)
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    return result.name, _shown(result.value), result.unit, baseline, ratio, bar, verdict, result.note


def _shown(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
