"""`sign-in-link` with the settings of the service `api`, as inside its container."""

import asyncio
from pathlib import Path

import pytest

from cloudtolocalllm.api.secrets import load_pseudonym_key
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth.links import link_key, parse_link_token
from cloudtolocalllm.auth.pseudonyms import owner_of
from cloudtolocalllm.cli.main import main
from cloudtolocalllm.runtime.clock import SystemClock

NOWHERE = "redis://:hunter2@127.0.0.1:1/0"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a service `api`."""
    folder = tmp_path / "cloud"
    settings = {"DATA_DIR": folder, "LISTEN": "0.0.0.0:8000", "MANAGER": "manager:8000",
                "PUBLIC_URL": "https://app.example.org"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"C2L_API_{name}", str(value))
    return folder


def link(tmp_path: Path) -> int:
    return main(["sign-in-link", "--data-dir", str(tmp_path / "none")])


def test_it_signs_the_owner_in_once(tmp_path: Path, cloud: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert link(tmp_path) == 0
    address, _, token = capsys.readouterr().out.strip().partition("#token=")
    assert address == "https://app.example.org/sign-in"
    hash_ = parse_link_token(token)
    assert hash_ is not None

    async def taken() -> list[bytes | None]:
        state = SqliteState(cloud / "state.db", clock=SystemClock())
        try:
            return [await state.take(link_key(hash_)) for _ in range(2)]
        finally:
            await state.close()

    owner = owner_of(load_pseudonym_key(cloud / "secrets"))
    assert asyncio.run(taken()) == [owner.encode(), None]
    assert token.encode() not in b"".join(path.read_bytes() for path in cloud.rglob("*") if path.is_file())
    assert main(["audit", "verify", "--log", str(cloud / "audit" / "cli")]) == 0


def test_a_state_that_does_not_answer_is_told(
    tmp_path: Path, cloud: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("C2L_API_STATE", NOWHERE)
    assert link(tmp_path) == 1
    said = capsys.readouterr()
    assert "see that Redis runs" in said.err
    assert said.out == ""
    assert "hunter2" not in said.err


def test_settings_that_do_not_hold_are_told(
    tmp_path: Path, cloud: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("C2L_API_MANAGER")
    assert link(tmp_path) == 1
    assert "C2L_API_MANAGER is not set" in capsys.readouterr().err


def test_without_either_it_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("C2L_API_DATA_DIR", raising=False)
    assert link(tmp_path) == 1
    assert "docker compose exec api-backend cloudtolocalllm sign-in-link" in capsys.readouterr().err
