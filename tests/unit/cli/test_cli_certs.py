"""`certs status`: what it says of a supervisor that is dead, at work, or in trouble."""

import json
from pathlib import Path
from typing import Any

import pytest

from cloudtolocalllm.cli import certs
from cloudtolocalllm.cli.main import main

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "has told nothing yet"),
        ({"at": "x"}, "has told nothing yet"),
        ({"at": NOW - 30, "fault": "certbot failed"}, "certbot failed"),
        ({"at": NOW - 30, "fault": ""}, ""),
        ({"at": NOW - 400, "next_at": NOW + 60}, "has told nothing since"),
    ],
)
def test_what_is_told_of_the_supervisor(told: dict[str, Any], words: str) -> None:
    fault = certs._supervisor_fault(told, NOW)
    assert (words in fault) if words else fault == ""


def test_no_certificate_needs_somebody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("C2L_CERTS_DOMAINS", "example.org")
    monkeypatch.setenv("C2L_CERTS_DEPLOY_DIR", str(tmp_path / "certs"))
    monkeypatch.setenv("C2L_CERTS_STATE_DIR", str(tmp_path / "state"))
    assert main(["certs", "status", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["good"] is False
    assert "no certificate is deployed yet" in told["problem"]
    assert main(["certs", "status", "--metrics"]) == 1
    assert 'c2l_certificate_usable{name="example.org"} 0' in capsys.readouterr().out
    assert main(["certs", "status"]) == 1
    assert "NOT USABLE" in capsys.readouterr().out
    assert main(["certs", "retry"]) == 0
    assert (tmp_path / "state" / "retry").exists()
