"""The history on disk: kept over restarts, and never read as less than it was."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtolocalllm.certs import history
from cloudtolocalllm.certs.policy import Attempt, Ledger, Outcome, decide

NOW = 1_800_000_000.0
NAMES = ("example.org",)


def ledger() -> Ledger:
    first = Attempt(NOW, NAMES, Outcome.PENDING, 0.25, "p")
    return (
        Ledger().begun(first).ended(Outcome.ISSUED, NOW + 5).begun(Attempt(NOW + 9, NAMES, Outcome.PENDING, 0, "p"))
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    history.save(tmp_path / "a.json", ledger())
    assert history.load(tmp_path / "a.json", NAMES, NOW + 20) == ledger()


def test_a_first_start_has_none(tmp_path: Path) -> None:
    assert history.load(tmp_path / "a.json", NAMES, NOW) == Ledger()


def test_a_pending_attempt_counts_after_a_restart(tmp_path: Path) -> None:
    history.save(tmp_path / "a.json", ledger())
    assert not decide(None, history.load(tmp_path / "a.json", NAMES, NOW + 10), NAMES, "p", NOW + 10).act


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_history_never_lets_ask_at_once(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.json"
    history.save(path, ledger())
    whole = path.read_bytes()
    damage = data.draw(
        st.one_of(
            st.integers(0, len(whole) - 1).map(lambda n: whole[:n]),
            st.binary(max_size=40),
            st.sampled_from([b"[]", b"null", b'{"version": 1}', b"[" * 100_000, b'{"version":1,"attempts":[{}]}']),
        )
    )
    path.write_bytes(damage)
    loaded = history.load(path, NAMES, NOW + 20)
    assert not decide(None, loaded, NAMES, "p", NOW + 20, asked=True).act
    assert history.load(path, NAMES, NOW + 20) == loaded, "the assumption is on disk as well"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None])
def test_times_that_are_none_are_damage(tmp_path: Path, value: object) -> None:
    history.save(tmp_path / "a.json", ledger())
    content = json.loads((tmp_path / "a.json").read_text())
    content["attempts"][0]["begun"] = value
    (tmp_path / "a.json").write_text(json.dumps(content))
    loaded = history.load(tmp_path / "a.json", NAMES, NOW + 20)
    assert loaded.streak == 3
