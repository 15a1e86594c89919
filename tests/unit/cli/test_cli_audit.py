"""`audit verify`, `audit show` and `services rotate` as a person calls them."""

import json
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.audit.events import Event, Reason
from cloudtolocalllm.audit.record import Entry, line_of
from cloudtolocalllm.audit.verify import records
from cloudtolocalllm.audit.writer import Writer
from cloudtolocalllm.auth.services import ServiceKeys
from cloudtolocalllm.cli.main import main

JANUARY = 1_767_225_600.0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for service in ("api", "edge"):
        writer = Writer(tmp_path / "audit" / service, f"example.org/{service}", now=JANUARY)
        for n in range(3):
            entry = Entry(Event.SIGN_IN_REFUSED, JANUARY + n * 86_400, user="u_a", reason=Reason.LINK_USED)
            writer.append([line_of(entry, uid=str(n), service=service)])
        writer.close(JANUARY)
    return tmp_path


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"u_a", b"u_b", 1))


def records_of(data_dir: Path, service: str) -> Path:
    return data_dir / "audit" / service / f"{0:020d}.jsonl"


def test_good_logs_are_good(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--data-dir", str(data_dir)]) == 0
    out = capsys.readouterr().out
    assert out.count(": good: 3 records, 3 of them signed for") == 2
    assert main(["audit", "verify", "--log", str(data_dir / "audit" / "api")]) == 0


def test_one_changed_log_is_told(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(records_of(data_dir, "edge"))
    assert main(["audit", "verify", "--data-dir", str(data_dir)]) == 1
    out = capsys.readouterr().out
    assert "api: good" in out
    assert "edge: CHANGED" in out
    assert "fault: records 0 to 2 are not those that were signed" in out


def test_checkpoints_and_a_key_from_elsewhere(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = data_dir / "audit" / "api"
    kept = tmp_path / "kept"
    kept.write_text((log / "checkpoint").read_text())
    key = (log / "log.vkey").read_text().strip()
    given = ["--data-dir", str(data_dir), "--checkpoint", str(kept), "--key", key]
    assert main(["audit", "verify", *given]) == 0
    assert "compared with 1 checkpoints from elsewhere" in capsys.readouterr().out
    for path in log.iterdir():
        path.unlink()
    Writer(log, "example.org/api", now=JANUARY).close(JANUARY)
    assert main(["audit", "verify", "--data-dir", str(data_dir)]) == 0
    assert main(["audit", "verify", *given]) == 1
    assert main(["audit", "verify", "--log", str(data_dir / "audit" / "edge"), "--checkpoint", str(kept)]) == 1
    assert "of none of these logs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["verify", "--key", "nonsense"], ["verify", "--checkpoint", "/none"], ["show", "--since", "soon"]]
)
def test_wrong_arguments_are_told(data_dir: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *arguments, "--data-dir", str(data_dir)]) == 2
    assert capsys.readouterr().err.startswith("cloudtolocalllm audit: ")


@pytest.mark.parametrize("action", ["verify", "show"])
def test_no_log_is_told(tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", action, "--data-dir", str(tmp_path)]) == 2
    assert "expected an audit log in" in capsys.readouterr().err


def test_events_are_shown(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", "--data-dir", str(data_dir), "--since", "2026-01-02"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == "2026-01-02 00:00:00  Low           api      sign-in-refused        reason=link-used user=u_a"
    assert main(["audit", "show", "--data-dir", str(data_dir), "--since", "1d"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["audit", "show", "--json", "--log", str(data_dir / "audit" / "api")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.encode() for line in shown] == list(records(data_dir / "audit" / "api"))
    with records_of(data_dir, "edge").open("ab") as file:
        file.write(b"[]\nnonsense\n")
    assert main(["audit", "show", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.count("(no record of ours in edge)") == 2


def test_a_services_keys_are_rotated_and_that_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cloud" / "secrets" / "services"
    assert main(["services", "rotate", "api", "--data-dir", str(tmp_path)]) == 1
    assert "expected the keys of a service" in capsys.readouterr().err
    ServiceKeys(folder, "api", FakeClock())
    assert main(["services", "rotate", "api", "--data-dir", str(tmp_path)]) == 0
    assert "in 30 s" in capsys.readouterr().out
    assert len(json.loads((folder / "public" / "api.json").read_text())["keys"]) == 2
    (line,) = records(tmp_path / "audit" / "cli")
    assert json.loads(line)["metadata"]["event_code"] == "service-keys-rotated"
    assert json.loads(line)["entity"]["uid"] == "api"
    assert main(["audit", "verify", "--data-dir", str(tmp_path)]) == 0
