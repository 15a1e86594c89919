"""deploy/uninstall: it removes this platform's own proxies only, and what is kept only when told so."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MARK = "0123456789abcdef"
PROFILES = "--profile monitoring --profile dev --profile build"
DOCKER = """#!/bin/sh
echo "docker $*" >>"$CALLS"
case "$*" in
  "ps -aq --filter label=com.docker.compose.project=mine "*) echo manager ;;
  "cp manager:/run/c2l/instances/manager-id -") tar -cf - -C "$(dirname "$IDENTITY")" "$(basename "$IDENTITY")" ;;
  "ps -aq --filter label=org.cloudtolocalllm.managed-by=0123456789abcdef") echo proxy-1; echo proxy-2 ;;
  "network ls -q --filter label=org.cloudtolocalllm.managed-by=0123456789abcdef") echo network-1 ;;
esac
"""


@dataclass
class Place:
    """A copy of deploy/ with what an install left."""

    folder: Path

    @property
    def compose(self) -> Path:
        return self.folder / "deploy" / "compose"

    def run(self, *options: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        environ = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.folder / "calls"),
            "IDENTITY": str(self.folder / "manager-id"),
        }
        command = [str(self.folder / "deploy" / "uninstall"), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environ, input=given)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "deploy" / "compose" / "secrets").mkdir(parents=True)
    (tmp_path / "deploy" / "compose" / "own").mkdir()
    shutil.copy(ROOT / "deploy" / "uninstall", tmp_path / "deploy")
    (tmp_path / "deploy" / "compose" / ".env").write_text("COMPOSE_PROJECT_NAME=mine\nC2L_DOMAIN=example.org\n")
    (tmp_path / "deploy" / "compose" / "secrets" / "redis-url").write_text("x")
    (tmp_path / "manager-id").write_text(MARK)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    return Place(tmp_path)


def test_it_ends_the_manager_then_its_proxies_then_the_rest(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0, done.stderr
    wanted = (
        "docker compose stop streaming-proxy-manager",
        "docker rm -f -v proxy-1 proxy-2",
        f"docker compose {PROFILES} down --remove-orphans",
        "docker network rm network-1",
    )
    order = [place.calls().index(call) for call in wanted]
    assert order == sorted(order)
    assert (place.compose / "secrets" / "redis-url").exists()
    assert (place.compose / ".env").exists()


def test_it_names_every_profile() -> None:
    """Compose v2 leaves what belongs to a profile that is not named."""
    text = (ROOT / "deploy" / "compose" / "docker-compose.yml").read_text()
    assert set(re.findall(r"profiles: \[(\w+)\]", text)) == set(PROFILES.replace("--profile", "").split())


def test_of_two_names_the_last_counts(place: Place) -> None:
    file = place.compose / ".env"
    file.write_text("COMPOSE_PROJECT_NAME=other\nC2L_DOMAIN=example.net\n" + file.read_text())
    assert place.run("--everything", given="example.org\n").returncode == 0
    assert "docker rm -f -v proxy-1 proxy-2" in place.calls()


def test_everything_goes_only_when_the_domain_is_typed(place: Place) -> None:
    refused = place.run("--everything", given="example.com\n")
    assert refused.returncode == 1
    assert place.calls() == []
    done = place.run("--everything", given="example.org\n")
    assert done.returncode == 0, done.stderr
    assert f"docker compose {PROFILES} down -v --remove-orphans" in place.calls()
    assert sorted(path.name for path in place.compose.iterdir()) == ["own"]


def test_without_the_managers_id_nobodys_proxies_are_touched(place: Place) -> None:
    (place.folder / "manager-id").write_text("; rm -rf /")
    done = place.run()
    assert done.returncode == 0
    assert "the manager's id was not found" in done.stderr
    assert not any(call.startswith(("docker rm", "docker network rm")) for call in place.calls())


def test_where_nothing_was_installed(place: Place) -> None:
    (place.compose / ".env").unlink()
    done = place.run("--everything", "--yes")
    assert done.returncode == 1
    assert "expected a platform that deploy/install set up" in done.stderr
    assert place.calls() == []
