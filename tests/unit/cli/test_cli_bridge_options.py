"""The bridge's command line: its options, and whether a browser would be seen."""

import argparse
from pathlib import Path

import pytest

from cloudtolocalllm.bridge.identity import PairingError
from cloudtolocalllm.cli import bridge
from cloudtolocalllm.cli.bridge_options import add_bridge


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_bridge(parser.add_subparsers())
    return parser.parse_args(["bridge", *arguments])


def test_without_an_action_it_runs() -> None:
    plain, named = parsed("--server", "http://x", "--engine", "http://e"), parsed("run", "--server", "http://x")
    assert plain.server == named.server == "http://x"
    assert plain.engine == ["http://e"]
    assert callable(plain.run)
    assert callable(named.run)


def test_login_needs_a_server_and_takes_no_key() -> None:
    for arguments in (("login",), ("login", "--server", "http://x", "--key", "k")):
        with pytest.raises(SystemExit):
            parsed(*arguments)


@pytest.mark.parametrize(
    ("environ", "system", "seen"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a b c d"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_TTY": "/dev/ttys0"}, "darwin", False),
        ({}, "win32", True),
    ],
)
def test_a_browser_is_opened_where_somebody_sees_it(environ: dict[str, str], system: str, seen: bool) -> None:
    assert bridge.has_display(environ, system) is seen


def test_a_qr_code_is_printed_in_blocks() -> None:
    lines = bridge.qr_code("https://app.example.org/pair?code=BCDF-GHJK").splitlines()
    assert 12 < len(lines) < 25, "expected it to fit a terminal"
    assert any("█" in line or "▀" in line for line in lines)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.test", "a.test-443.json"),
        ("http://a.test:8080/", "a.test-8080.json"),
        ("http://[::1]:1", "__1-1.json"),
    ],
)
def test_each_server_has_a_file(url: str, name: str) -> None:
    assert bridge._file_name(url) == name


@pytest.mark.parametrize("url", ["", "x", "ftp://x", "http://", "http://x:99999", "/etc/passwd"])
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(PairingError, match="server's URL"):
        bridge._file_name(url)


def test_the_only_server_is_the_one_that_is_meant(tmp_path: Path) -> None:
    with pytest.raises(PairingError, match="with none"):
        bridge._only_server(tmp_path)
    (tmp_path / "a.json").write_text('{"server": "http://a"}')
    (tmp_path / "broken.json").write_text("x")
    assert bridge._only_server(tmp_path) == "http://a"
    (tmp_path / "b.json").write_text('{"server": "http://b"}')
    with pytest.raises(PairingError, match="with several"):
        bridge._only_server(tmp_path)
