"""What continuous integration runs, in which order."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_cheap_checks_come_first_and_all_are_run() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test", "make audit"]
    assert "set -euo pipefail" in lines
    assert "export C2L_REQUIRE=all" in lines
