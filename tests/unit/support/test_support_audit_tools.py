"""How the reports of `make audit`'s tools, and what everybody else is answered meanwhile, are read."""

from typing import Any

import pytest
from tests.support.audit_probe import LATEST, MEMORY, Watched
from tests.support.audit_tools import Second, findings, seconds_of

RESERVED = {"cert_revocation": "for a reason"}


def report(*items: tuple[str, str]) -> dict[str, Any]:
    found = [{"id": id_, "severity": severity, "finding": "words"} for id_, severity in items]
    host = {"targetHost": "app.llm.example", "serverDefaults": found, "vulnerabilities": []}
    return {"clientProblem1": [], "scanResult": [host], "scanTime": 81}


@pytest.mark.parametrize("severity", ["MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN"])
def test_what_is_above_low_is_found(severity: str) -> None:
    assert findings(report(("cipher_order", severity)), RESERVED) == [f"{severity} cipher_order: words"]


def test_what_is_low_or_reserved_is_not() -> None:
    assert findings(report(("overall", "LOW"), ("hsts", "OK"), ("cert_revocation", "HIGH")), RESERVED) == []
    assert len(findings(report(("cert_revocation", "HIGH"), ("cert_revocation_2", "HIGH")), {})) == 2
    assert len(findings(report(("cert_revocation_2", "HIGH")), RESERVED)) == 1


def test_checks_that_the_tool_could_not_make_count_but_for_the_idle_ones() -> None:
    assert findings(report(("sessionresumption_ticket", "WARN"), ("sessionresumption_ID", "WARN")), {}) == []
    found = findings(report(("sessionresumption_ticket", "HIGH"), ("heartbleed", "WARN")), {})
    assert found == ["HIGH sessionresumption_ticket: words", "WARN heartbleed: words"]


def test_a_report_of_less_is_none() -> None:
    whole = report()
    for less in ({}, {**whole, "scanResult": []}, {**whole, "scanResult": [{"targetHost": "x"}]}):
        with pytest.raises(ValueError, match="to its end"):
            findings(less, {})
    problem = {"id": "scanProblem", "severity": "FATAL", "finding": "no such host"}
    with pytest.raises(ValueError, match="no such host"):
        findings({**whole, "scanResult": [problem]}, {})
    del whole["scanTime"]
    with pytest.raises(ValueError, match="to its end"):
        findings(whole, {})


def test_the_seconds_of_an_attack() -> None:
    text = "Seconds,Closed,Pending,Connected,Service Available\n0,0,1,0,300\n1,33,3,7,300\n"
    assert seconds_of(text) == [Second(0, 1, 0), Second(33, 3, 7)]
    with pytest.raises(ValueError, match="got none"):
        seconds_of("Seconds,Closed,Pending,Connected,Service Available\n")


def test_everybody_else_is_answered_soon_but_for_one_in_a_hundred_and_none_too_late() -> None:
    Watched([0.1] * 198 + [2.0] * 2).judge(usual=1)
    for faulty in (
        Watched([0.1] * 197 + [2.0] * 3),  # too many are slow
        Watched([0.1] * 20 + [2.0]),  # of a few, none may be
        Watched([0.1] * 199 + [LATEST + 1]),
        Watched([0.1] * 5),  # hardly any was asked
        Watched([0.1] * 200, faults=["/: 503"]),
        Watched([0.1] * 200, memory=MEMORY // 2, kept=MEMORY // 2),
    ):
        with pytest.raises(AssertionError):
            faulty.judge(usual=1)
