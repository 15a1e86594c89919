import json
from pathlib import Path

import pytest
from bench.load import Outcome
from bench.report import Result, percentile, table, write


def test_a_bar_is_an_upper_bound_unless_said_otherwise() -> None:
    assert Result("a", 1.0, "ms", bar=2.0).ok is True
    assert Result("a", 3.0, "ms", bar=2.0).ok is False
    assert Result("a", 3.0, "1/s", bar=2.0, at_least=True).ok is True
    assert Result("a", 3.0, "ms").ok is None


def test_the_ratio_is_to_the_baseline() -> None:
    assert Result("a", 3.0, "ms", baseline=2.0).ratio == 1.5
    assert Result("a", 3.0, "ms", baseline=0.0).ratio is None


def test_percentiles_by_nearest_rank() -> None:
    values = [float(i) for i in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (51.0, 100.0, 100.0)
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_the_file_has_exactly_the_members_and_keeps_figures_of_earlier_runs(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    write([Result("a", 1.23456789, "ms", 2.0, 5.0), Result("b", 1.0, "s")], path)
    write([Result("b", 2.0, "s")], path)
    first, second = json.loads(path.read_text())
    assert first == {
        "name": "a", "value": 1.2346, "unit": "ms", "baseline": 2.0, "ratio": 0.61728, "bar": 5.0, "ok": True,
    }  # fmt: skip
    assert (second["name"], second["value"]) == ("b", 2.0)


def test_the_table_names_what_was_missed() -> None:
    text = table([Result("latency", 3.0, "ms", bar=2.0, note="why")])
    assert "latency" in text
    assert "MISSED" in text
    assert "why" in text


def test_outcomes_of_several_processes_are_added_up() -> None:
    one, other = Outcome(tokens=1, first={"a": [1.0]}), Outcome(tokens=2, first={"a": [2.0], "b": [3.0]})
    one.latencies.append(0.5)
    other.longest_gap = 7.0
    merged = one.merged(Outcome.from_json(json.loads(json.dumps(other.to_json()))))
    assert (merged.tokens, merged.first, merged.longest_gap) == (3, {"a": [1.0, 2.0], "b": [3.0]}, 7.0)
    assert list(merged.latencies) == [0.5]
