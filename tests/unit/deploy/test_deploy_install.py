"""deploy/install: what it refuses, that it then changes nothing, and that a second run changes nothing either."""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.require import require

ROOT = Path(__file__).resolve().parents[3]
GOOD = {
    "--domain": "example.org",
    "--email": "me@example.org",
    "--issuer": "https://login.example.org/",
    "--client-id": "abc123",
}
DOCKER = """#!/bin/sh
echo "docker $*" >>"$CALLS"
case "$*" in
  "compose version --short") echo "${COMPOSE_VERSION:-2.29.1}" ;;
  "compose version") [ "${COMPOSE_VERSION:-2}" != none ] ;;
  "version --format {{.Server.Version}}") [ "$ENGINE" != down ] && echo "$ENGINE" ;;
  "network ls"* | "ps -q"*) printf '%s' "$OURS" ;;
  "compose ps -q") echo one ;;
  "inspect "*) echo "healthy /one" ;;
esac
"""
NO_ROUTES = "Iface Destination Gateway\neth0 00000000 0100000A\n"
NO_LISTENERS = "  sl  local_address rem_address   st\n"
ON_443 = NO_LISTENERS + "   0: 00000000:01BB 00000000:0000 0A 0\n"


@dataclass
class Machine:
    """A made-up server with a copy of deploy/."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def compose(self) -> Path:
        return self.folder / "deploy" / "compose"

    @property
    def secret(self) -> Path:
        return self.folder / "client-secret"

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def write(self, path: str, text: str) -> None:
        file = self.folder / "root" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        files = [path for path in self.compose.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    def run(self, *options: str, answers: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        given = GOOD if answers is None else answers
        words = [word for pair in given.items() for word in pair]
        environ = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "C2L_INSTALL_ROOT": str(self.folder / "root"),
            "CALLS": str(self.folder / "calls"),
            "ENGINE": "27.3.1",
            **self.environ,
        }
        command = [str(self.folder / "deploy" / "install"), "--yes", *words, *options]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, env=environ, stdin=subprocess.DEVNULL
        )

    def installs(self, *options: str, answers: dict[str, str] | None = None) -> str:
        done = self.run("--client-secret-file", str(self.secret), *options, answers=answers)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refuses(self, expected: str, *options: str, answers: dict[str, str] | None = None) -> None:
        before = self.snapshot()
        done = self.run("--client-secret-file", str(self.secret), *options, answers=answers)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"expected {expected}" in done.stderr
        assert "Nothing was changed" in done.stderr
        assert self.snapshot() == before
        assert not any("up -d" in call or "build" in call for call in self.calls())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    shutil.copytree(
        ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns(".env", "secrets", "answers", "images")
    )
    made.secret.write_text("the-secret")
    made.program("docker", DOCKER)
    made.program("getent", '#!/bin/sh\n[ -n "$NO_DNS" ] || echo "192.0.2.1 STREAM"\n')
    made.program("hostname", "#!/bin/sh\necho 192.0.2.1\n")
    made.program("df", '#!/bin/sh\necho h; echo "d 1 1 ${FREE:-90000000} 1% /"\n')
    made.write("proc/meminfo", "MemTotal:        4000000 kB\n")
    made.write("proc/net/tcp", NO_LISTENERS)
    made.write("proc/net/route", NO_ROUTES)
    made.write("var/run/docker.sock", "")
    return made


def test_it_sets_everything_up(machine: Machine) -> None:
    said = machine.installs()
    settings = (machine.compose / ".env").read_text()
    assert "C2L_DOMAIN=example.org\n" in settings
    assert "C2L_CERT_NAMES=example.org,app.example.org\n" in settings
    assert f"C2L_DOCKER_GID={os.getgid()}\n" in settings
    assert "the-secret" not in settings + said + " ".join(machine.calls())
    assert "docker compose up -d" in machine.calls()
    assert "https://app.example.org/api/auth/oidc/callback" in said


def test_secrets_are_files_behind_a_closed_folder(machine: Machine) -> None:
    machine.installs()
    folder = machine.compose / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "oidc-client-secret").read_text() == "the-secret"
    password = (folder / "redis-auth").read_text().removeprefix("requirepass ").strip()
    assert len(password) == 48
    assert (folder / "redis-url").read_text().strip() == f"redis://:{password}@redis:6379/0"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    assert stat.S_IMODE((machine.compose / ".env").stat().st_mode) == 0o600


def test_a_second_run_changes_nothing_and_asks_for_nothing(machine: Machine) -> None:
    machine.installs()
    before = machine.snapshot()
    done = machine.run(answers={})
    assert done.returncode == 0, done.stderr
    assert machine.snapshot() == before


def test_what_is_changed_later_is_kept_or_taken(machine: Machine) -> None:
    machine.installs()
    file = machine.compose / ".env"
    file.write_text(file.read_text() + "C2L_WARM=9\n")
    machine.installs("--replicas", "5")
    assert file.read_text().endswith("\nC2L_WARM=9\n")
    assert "C2L_API_REPLICAS=5\n" in file.read_text()


def test_only_checking_changes_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    assert "All checks passed" in machine.installs("--check")
    assert machine.snapshot() == before


def test_answers_from_a_file_count_after_options_and_are_never_run(machine: Machine) -> None:
    file = machine.folder / "mine"
    touched = machine.folder / "touched"
    file.write_text(f"# mine\ndomain=other.example\nclient_id=$(touch {touched})\n")
    given = {name: value for name, value in GOOD.items() if name != "--client-id"}
    machine.refuses("the client id", "--answers", str(file), answers=given)
    assert not touched.exists()
    file.write_text("domain=other.example\nclient_id=xyz\n")
    machine.installs("--answers", str(file), answers=given)
    assert "C2L_DOMAIN=example.org\n" in (machine.compose / ".env").read_text()
    file.write_text("PATH=/tmp\n")
    assert machine.run("--answers", str(file)).returncode == 2


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--domain", "", "a domain"),
        ("--domain", "localhost", "a domain with a dot"),
        ("--domain", "example.org\nC2L_X=1", "a domain"),
        ("--domain", "$(id).org", "a domain"),
        ("--domain", "a..org", "a domain"),
        ("--email", "", "an e-mail address"),
        ("--email", "a@b@c.org", "an e-mail address"),
        ("--issuer", "", "an OpenID provider"),
        ("--issuer", "http://login.example.org", "an issuer that begins with https://"),
        ("--issuer", "https://x.org/$HOME", "an issuer without"),
        ("--client-id", "a b", "the client id"),
        ("--provider-name", "a'b", "a provider's name"),
        ("--cert-mode", "none", "--cert-mode"),
        ("--cert-mode", "own", "your certificate in"),
        ("--isolation", "vm", "--isolation"),
        ("--replicas", "0", "--replicas"),
        ("--replicas", "99", "--replicas"),
    ],
)
def test_answers_that_cannot_be(machine: Machine, option: str, value: str, expected: str) -> None:
    machine.refuses(expected, answers={**GOOD, option: value})


def test_a_missing_secret(machine: Machine) -> None:
    machine.secret.write_text("")
    machine.refuses("the client's secret")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ENGINE": "down"}, "Docker to run"),
        ({"ENGINE": "19.03.8"}, "Docker 20.10 or newer, got 19.03.8"),
        ({"COMPOSE_VERSION": "1.28.0"}, "Compose 1.29 or newer, got 1.28.0"),
        ({"FREE": "100"}, "5 GB free"),
        ({"NO_DNS": "yes"}, "example.org to lead to this machine"),
    ],
)
def test_a_machine_that_will_not_do(machine: Machine, environ: dict[str, str], expected: str) -> None:
    machine.environ = environ
    machine.refuses(expected)


def test_too_little_memory(machine: Machine) -> None:
    machine.write("proc/meminfo", "MemTotal:        500000 kB\n")
    machine.refuses("2 GB of memory, got 500 MB")


def test_a_taken_port_unless_it_is_ours(machine: Machine) -> None:
    machine.write("proc/net/tcp", ON_443)
    machine.refuses("port 443 to be free")
    machine.environ = {"OURS": "abc"}
    machine.installs()


def test_taken_addresses_unless_they_are_ours(machine: Machine) -> None:
    machine.write("proc/net/route", NO_ROUTES + "br0 000014AC 00000000\n")
    machine.refuses("the addresses 172.20.0.0/16")
    machine.environ = {"OURS": "abc"}
    machine.installs()


def test_all_faults_are_told_at_once(machine: Machine) -> None:
    machine.environ = {"FREE": "100", "NO_DNS": "yes"}
    done = machine.run(answers={**GOOD, "--email": "x"})
    assert done.stderr.count("  expected ") == 5  # e-mail, secret, disk, two names


def test_without_certificates_from_outside_names_need_not_resolve(machine: Machine) -> None:
    machine.environ = {"NO_DNS": "yes"}
    machine.installs(answers={**GOOD, "--cert-mode": "local-ca"})


def test_older_compose_has_its_own_command_and_names(machine: Machine) -> None:
    machine.environ = {"COMPOSE_VERSION": "none"}
    machine.program("docker-compose", '#!/bin/sh\necho "old $*" >>"$CALLS"\n[ "$1" != version ] || echo 1.29.2\n')
    machine.installs("--isolation", "network")
    assert "old up -d" in machine.calls()
    assert "C2L_ATTACH=cloudtolocalllm_nginx-proxy_1," in (machine.compose / ".env").read_text()


def test_shellcheck_has_nothing_to_say() -> None:
    require(shutil.which("shellcheck"), "shellcheck", "apt-get install shellcheck")
    scripts = [ROOT / "deploy" / "install", *sorted((ROOT / "deploy" / "install.d").glob("*.sh"))]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
