"""What nginx finds on disk: prepared once, and a certificate that cannot be used is never named."""

import argparse
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.cli.nginx import nginx_render
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.limits import Kind
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, CONFIGURATION, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.script import TABLE_SIZE
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import make_placeholder, prepare, usable, write
from cloudtolocalllm.edge.settings import EdgeSettings

EDGE = EdgeSettings(api=(Endpoint(path="/run/api.sock"),), domain="llm.example")


@pytest.fixture
def nginx(tmp_path: Path) -> NginxSettings:
    return NginxSettings(state_dir=tmp_path / "state", certificate_dir=tmp_path / "certs")


def pair(folder: Path) -> Path:
    make_placeholder(folder, "llm.example", FakeClock())
    return folder


def test_a_pair_is_usable_when_it_is_whole_and_matches(tmp_path: Path) -> None:
    assert not usable(tmp_path / "none")
    one, two = pair(tmp_path / "one"), pair(tmp_path / "two")
    assert usable(one)
    key = (one / PRIVATE_KEY).read_bytes()
    for wrong in ((two / PRIVATE_KEY).read_bytes(), key[: len(key) // 2], b""):
        (one / PRIVATE_KEY).write_bytes(wrong)
        assert not usable(one)
    (one / PRIVATE_KEY).write_bytes(key)
    (one / CERTIFICATE).write_bytes((one / CERTIFICATE).read_bytes()[:100])
    assert not usable(one)


def test_a_placeholders_key_is_its_owners_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE((pair(tmp_path / "x") / PRIVATE_KEY).stat().st_mode) == 0o600


def test_the_tables_have_their_size_and_keep_their_counts(nginx: NginxSettings) -> None:
    prepare(EDGE, nginx, FakeClock())
    tables = [nginx.state_dir / "limits" / kind.value for kind in Kind]
    assert {table.stat().st_size for table in tables} == {TABLE_SIZE}
    assert all(table.stat().st_blocks * 512 >= TABLE_SIZE for table in tables)  # reserved
    tables[0].write_bytes(b"x" * TABLE_SIZE)
    prepare(EDGE, nginx, FakeClock())
    assert tables[0].read_bytes() == b"x" * TABLE_SIZE


def test_sockets_of_a_killed_nginx_are_removed(nginx: NginxSettings) -> None:
    nginx.state_dir.mkdir()
    (nginx.state_dir / "plain.sock").touch()
    prepare(EDGE, nginx, FakeClock())
    assert list(nginx.state_dir.glob("*.sock")) == []


def test_the_certificate_is_named_once_it_can_be_used(nginx: NginxSettings, tmp_path: Path) -> None:
    assert nginx.certificate_dir is not None
    prepare(EDGE, nginx, FakeClock())
    write(tmp_path / "conf", EDGE, nginx)
    path = tmp_path / "conf" / CONFIGURATION
    assert f"ssl_certificate {nginx.state_dir}/placeholder/{CERTIFICATE};" in path.read_text()
    pair(nginx.certificate_dir)
    write(tmp_path / "conf", EDGE, nginx)
    assert f"ssl_certificate {nginx.certificate_dir}/{CERTIFICATE};" in path.read_text()
    assert sorted(found.name for found in (tmp_path / "conf").iterdir()) == [
        *("clients.js", "gate.js", "limits.js", "nginx.conf", "settings.json")
    ]


def test_the_tables_key_lasts_and_is_nobody_elses(nginx: NginxSettings, tmp_path: Path) -> None:
    plain = replace(nginx, certificate_dir=None)
    texts = []
    for _ in range(2):
        write(tmp_path / "conf", EDGE, plain)
        texts.append((tmp_path / "conf" / "settings.json").read_text())
    assert texts[0] == texts[1]
    other = replace(plain, state_dir=tmp_path / "other")
    write(tmp_path / "conf", EDGE, other)
    assert (tmp_path / "other" / "limits" / "key").read_text() not in texts[0]
    assert stat.S_IMODE((tmp_path / "other" / "limits" / "key").stat().st_mode) == 0o600


def test_the_command_tells_all_faults_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(output=tmp_path / "out")
    monkeypatch.setenv("C2L_EDGE_DATA_BODY_LIMIT", "much")
    monkeypatch.setenv("C2L_NGINX_WORKERS", "many")
    monkeypatch.setenv("C2L_NGINX_NONSENSE", "1")
    assert nginx_render(options) == 2
    said = capsys.readouterr().err
    for name in ("C2L_EDGE_API", "C2L_EDGE_DATA_BODY_LIMIT", "C2L_NGINX_WORKERS", "C2L_NGINX_NONSENSE"):
        assert name in said
    for name in ("C2L_EDGE_DATA_BODY_LIMIT", "C2L_NGINX_WORKERS", "C2L_NGINX_NONSENSE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("C2L_EDGE_API", "unix:/run/api.sock")
    monkeypatch.setenv("C2L_NGINX_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("C2L_EDGE_DOMAIN", "a;b")
    assert nginx_render(options) == 2
    assert "C2L_EDGE_DOMAIN: expected" in capsys.readouterr().err
    monkeypatch.setenv("C2L_EDGE_DOMAIN", "llm.example")
    assert nginx_render(options) == 0
    assert (tmp_path / "out" / CONFIGURATION).exists()
