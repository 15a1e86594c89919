"""Which port `bridge run` serves the page on, and that a browser is led to it without the link on a command line."""

import time
import webbrowser
from pathlib import Path

import pytest

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.page.link import PageAddress, address_path, write_address
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.cli import bridge, bridge_page
from cloudtolocalllm.cli.main import main

VARIABLE = "C2L_BRIDGE_PAGE_PORT"


@pytest.fixture
def credential(tmp_path: Path) -> Path:
    now = time.time()
    path = tmp_path / "example.org-443.json"
    identity = BridgeIdentity("https://example.org", "br-test", "secret", ProofKey.generate(), now, now + 86_400)
    identity.save(path)
    return path


@pytest.mark.parametrize(
    ("options", "environ", "wanted"),
    [
        ((), {}, "8790"),
        (("--page-port", "9000"), {}, "9000"),
        (("--page-port", "0"), {VARIABLE: "9001"}, "0"),
        (("--no-page",), {VARIABLE: "9001"}, ""),
        ((), {VARIABLE: "9001"}, None),
        ((), {VARIABLE: ""}, None),
    ],
)
def test_the_port_of_the_page(
    credential: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], environ: dict[str, str],
    wanted: str | None,
) -> None:  # fmt: skip
    given: dict[str, str] = {}

    def run(name: str, overrides: dict[str, str]) -> int:
        given.update(overrides)
        return 0

    monkeypatch.setattr(bridge, "run_service", run)
    monkeypatch.setattr(bridge, "environment", lambda: environ)
    assert main(["bridge", "run", "--data-dir", str(credential.parent), *options]) == 0
    assert given.get(VARIABLE) == wanted


@pytest.mark.parametrize(
    "options", [("--page-port", "65536"), ("--page-port", "x"), ("--page-port", "1", "--no-page")]
)
def test_wrong_options_are_told(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bridge", "run", "--page-port", *options])
    assert "--page-port" in capsys.readouterr().err


def test_the_browser_gets_a_private_file_and_no_link(
    credential: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(bridge_page, "has_display", lambda environ, system: True)
    write_address(address_path(credential), PageAddress("http://127.0.0.1:8790", bytes(32)))
    held = StoreLock(home_path(credential))
    held.acquire()
    try:
        assert main(["bridge", "page", "--data-dir", str(credential.parent)]) == 0
    finally:
        held.release()
    [link] = [word for word in capsys.readouterr().out.split() if word.startswith("http")]
    [url] = opened
    assert url.startswith("file:///")
    assert "token" not in url, "expected nothing that other users could read in the list of processes"
    file = Path(url.removeprefix("file://"))
    assert link in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_whoever_listens_there_when_the_bridge_does_not_run_gets_no_link(
    credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_address(address_path(credential), PageAddress("http://127.0.0.1:8790", bytes(32)))
    assert main(["bridge", "page", "--data-dir", str(credential.parent)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "the bridge does not run" in said.err
