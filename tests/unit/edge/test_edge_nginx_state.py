"""What nginx finds on disk: prepared once, and a certificate that cannot be used is never named."""

import argparse
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.cli.nginx import nginx_render
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.limits import Kind
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, CONFIGURATION, IN_USE, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.script import TABLE_SIZE
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import clear, make_placeholder, prepare, take_certificate, usable, write
from cloudtolocalllm.edge.nginx.text import RenderError
from cloudtolocalllm.edge.settings import EdgeSettings

EDGE = EdgeSettings(api=(Endpoint(path="/run/api.sock"),), domain="llm.example")
USER = "root" if os.geteuid() == 0 else ""


@pytest.fixture
def nginx(tmp_path: Path) -> NginxSettings:
    return NginxSettings(state_dir=tmp_path / "state", certificate_dir=tmp_path / "certs", user=USER)


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
    clear(nginx.state_dir)
    assert list(nginx.state_dir.glob("*.sock")) == []


def both(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CERTIFICATE).read_bytes(), (folder / PRIVATE_KEY).read_bytes()


def test_a_certificate_is_taken_when_it_can_be_used_and_stays_when_the_next_cannot(nginx: NginxSettings) -> None:
    assert nginx.certificate_dir is not None
    in_use = nginx.state_dir / IN_USE
    prepare(EDGE, nginx, FakeClock())
    first = both(in_use)
    assert usable(in_use)
    assert not take_certificate(nginx.certificate_dir, nginx.state_dir)  # there is none
    pair(nginx.certificate_dir)
    prepare(EDGE, nginx, FakeClock())
    good = both(nginx.certificate_dir)
    assert both(in_use) == good != first
    assert stat.S_IMODE((in_use / PRIVATE_KEY).stat().st_mode) == 0o600
    (nginx.certificate_dir / PRIVATE_KEY).write_bytes(first[1])
    assert not take_certificate(nginx.certificate_dir, nginx.state_dir)
    prepare(EDGE, nginx, FakeClock())  # as at a start
    assert both(in_use) == good
    assert sorted(found.name for found in nginx.state_dir.iterdir()) == [IN_USE, "limits"]


def test_the_configuration_names_the_certificate_in_use(nginx: NginxSettings, tmp_path: Path) -> None:
    write(tmp_path / "conf", EDGE, nginx)
    text = (tmp_path / "conf" / CONFIGURATION).read_text()
    assert f"ssl_certificate {nginx.state_dir}/{IN_USE}/{CERTIFICATE};" in text
    assert f"ssl_certificate_key {nginx.state_dir}/{IN_USE}/{PRIVATE_KEY};" in text
    assert sorted(found.name for found in (tmp_path / "conf").iterdir()) == [
        *("clients.js", "gate.js", "limits.js", "nginx.conf", "settings.json")
    ]


def test_the_state_folder_is_its_owners_alone(nginx: NginxSettings) -> None:
    nginx.state_dir.mkdir(mode=0o755)
    prepare(EDGE, nginx, FakeClock())
    assert stat.S_IMODE(nginx.state_dir.stat().st_mode) == 0o700


def test_root_names_the_workers_user(nginx: NginxSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RenderError, match="C2L_NGINX_USER: expected a user of this machine"):
        prepare(EDGE, replace(nginx, user="c2l-no-such-user"), FakeClock())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RenderError, match="C2L_NGINX_USER: expected a user when nginx is started by root"):
        prepare(EDGE, replace(nginx, user=""), FakeClock())


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
    monkeypatch.setenv("C2L_NGINX_USER", USER)
    monkeypatch.setenv("C2L_EDGE_DOMAIN", "a;b")
    assert nginx_render(options) == 2
    assert "C2L_EDGE_DOMAIN: expected" in capsys.readouterr().err
    monkeypatch.setenv("C2L_EDGE_DOMAIN", "llm.example")
    assert nginx_render(options) == 0
    assert (tmp_path / "out" / CONFIGURATION).exists()


def test_the_command_disturbs_no_nginx_that_runs(nginx: NginxSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C2L_EDGE_API", "unix:/run/api.sock")
    monkeypatch.setenv("C2L_NGINX_STATE_DIR", str(nginx.state_dir))
    monkeypatch.setenv("C2L_NGINX_CERTIFICATE_DIR", str(nginx.certificate_dir))
    monkeypatch.setenv("C2L_NGINX_USER", USER)
    prepare(EDGE, nginx, FakeClock())
    in_use = both(nginx.state_dir / IN_USE)
    for name in ("plain.sock", "closing"):
        (nginx.state_dir / name).touch()
    assert nginx_render(argparse.Namespace(output=nginx.state_dir.parent / "out")) == 0
    assert both(nginx.state_dir / IN_USE) == in_use
    assert all((nginx.state_dir / name).exists() for name in ("plain.sock", "closing"))
