"""deploy/install: what it refuses, that it then changes nothing, and that a second run changes nothing either."""

import os
import shutil
import stat
import subprocess

import pytest
from tests.support.install_machine import GOOD, ON_443, ROOT, Machine
from tests.support.require import require


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


def test_lines_that_were_there_before_the_first_install_are_kept(machine: Machine) -> None:
    (machine.compose / ".env").write_text("# --- yours, below ---\nC2L_WARM=9\n")
    machine.installs()
    assert (machine.compose / ".env").read_text().endswith("\n# --- yours, below ---\nC2L_WARM=9\n")


def test_a_rehearsal_and_its_end(machine: Machine) -> None:
    machine.installs()
    file = machine.compose / ".env"
    machine.environ = {"NO_DNS": "yes"}
    machine.installs("--staging", "--skip-dns")
    assert "C2L_CERT_STAGING=true\n" in file.read_text()
    machine.installs()  # both are remembered
    assert "C2L_CERT_STAGING=true\n" in file.read_text()
    machine.refuses("example.org to lead to this machine", "--no-skip-dns")
    machine.installs("--no-staging")
    assert "C2L_CERT_STAGING=false\n" in file.read_text()


@pytest.mark.parametrize("name", ["staging", "skip_dns"])
def test_a_yes_or_no_is_never_run(machine: Machine, name: str) -> None:
    file, touched = machine.folder / "mine", machine.folder / "touched"
    file.write_text(f"{name}=touch {touched}\n")
    machine.refuses(f"{name} to be true or false", "--answers", str(file))
    assert not touched.exists()


def test_of_two_lines_the_last_counts(machine: Machine) -> None:
    machine.installs("--tag", "1.2")
    file = machine.compose / ".env"
    file.write_text(file.read_text() + "C2L_TAG=1.1\nCOMPOSE_PROJECT_NAME=second\n")
    machine.refuses("--project to stay second here")
    machine.installs("--project", "second")
    assert "C2L_TAG=1.1\n" in file.read_text().partition("# --- yours")[0]


def test_the_tag_is_what_settings_say(machine: Machine) -> None:
    machine.installs("--tag", "1.2")
    file = machine.compose / ".env"
    file.write_text(file.read_text().replace("C2L_TAG=1.2", "C2L_TAG=1.1"))
    machine.installs()
    assert "C2L_TAG=1.1\n" in file.read_text()


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
        ("--subnet", "8.8", "--subnet of private addresses"),
        ("--subnet", "172.32", "--subnet of private addresses"),
        ("--subnet", "172.20.0", "--subnet of private addresses"),
        ("--subnet", "10.256", "--subnet of private addresses"),
        ("--http", "0", "--http and --https"),
        ("--http", "65536", "--http and --https"),
        ("--https", "host:443", "--http and --https"),
        ("--https", ":443", "--http and --https"),
        ("--public-port", "x", "--public-port"),
        ("--project", "Big", "--project"),
        ("--project", "x" * 41, "a shorter --project"),
        ("--tag", "a b", "--tag"),
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


def test_another_place_on_the_machine(machine: Machine) -> None:
    machine.write("proc/net/tcp", ON_443)
    said = machine.installs(
        "--http", "127.0.0.1:8080", "--https", "8443", "--public-port", "8443", "--project", "second", "--tag", "1.2"
    )
    settings = (machine.compose / ".env").read_text()
    for line in (
        "COMPOSE_PROJECT_NAME=second", "C2L_HTTP=127.0.0.1:8080", "C2L_HTTPS=8443", "C2L_HTTPS_PORT=8443",
        "C2L_PORT_SUFFIX=:8443", "C2L_TAG=1.2",
    ):  # fmt: skip
        assert f"{line}\n" in settings
    assert "https://app.example.org:8443/api/auth/oidc/callback" in said
    assert machine.run(answers={}).returncode == 0  # and it is remembered
    assert (machine.compose / ".env").read_text() == settings


def test_the_authority_needs_port_80(machine: Machine) -> None:
    done = machine.run("--client-secret-file", str(machine.secret), "--http", "8080")
    assert done.returncode == 0
    assert "note: the certificate's authority comes by port 80" in done.stderr


@pytest.mark.parametrize(("state", "told"), [("false inactive", "live-restore"), ("true inactive", ""),
                                             ("false active", "swarm mode")])  # fmt: skip
def test_an_engine_that_ends_answers_when_it_is_updated(machine: Machine, state: str, told: str) -> None:
    machine.environ = {"LIVE_RESTORE": state}
    done = machine.run("--client-secret-file", str(machine.secret))
    assert done.returncode == 0
    assert ("will end running answers" in done.stderr) is bool(told)
    assert told in done.stderr
    if told == "live-restore":
        assert '{ "live-restore": true }' in done.stderr


def test_an_owner_alone_needs_no_provider(machine: Machine) -> None:
    given = {"--domain": "example.org", "--email": "me@example.org", "--issuer": "none"}
    done = machine.run(answers=given)
    assert done.returncode == 0, done.stderr
    assert "docker compose exec api-backend cloudtolocalllm sign-in-link" in done.stdout
    assert "OIDC" not in (machine.compose / ".env").read_text()
    assert (machine.compose / "secrets" / "oidc-client-secret").read_text() == "none\n"  # Compose wants the file
    before = machine.snapshot()
    assert machine.run(answers={}).returncode == 0
    assert machine.snapshot() == before


def test_a_provider_can_come_later(machine: Machine) -> None:
    assert machine.run(answers={"--domain": "example.org", "--email": "me@e.org", "--issuer": "none"}).returncode == 0
    machine.installs()
    assert "C2L_OIDC_CLIENT_ID=abc123\n" in (machine.compose / ".env").read_text()
    assert (machine.compose / "secrets" / "oidc-client-secret").read_text() == "the-secret"


def test_an_install_of_before_these_answers_goes_on(machine: Machine) -> None:
    machine.installs()
    file = machine.compose / "answers"
    kept = file.read_text().splitlines()
    file.write_text(
        "".join(f"{line}\n" for line in kept if not line.startswith(("subnet", "http", "project", "tag")))
    )
    before = (machine.compose / ".env").read_text()
    assert machine.run(answers={}).returncode == 0
    assert (machine.compose / ".env").read_text() == before


def test_what_runs_is_replaced_one_by_one(machine: Machine) -> None:
    rollout = machine.folder / "deploy" / "rollout"
    rollout.write_text('#!/bin/sh\necho "rollout $*" >>"$CALLS"\n[ "$1" = --help ] || exit "${ROLLOUT:-0}"\n')
    rollout.chmod(0o755)
    machine.installs()
    assert "docker compose up -d" in machine.calls()
    assert "rollout all" not in machine.calls()
    machine.environ = {"RUNS": "new\nold"}  # an old nginx that still ends its streams
    machine.installs()
    assert machine.calls().index("docker compose up -d --no-recreate --scale nginx-proxy=2") < machine.calls().index(
        "rollout all"
    )
    assert machine.calls().count("docker compose up -d") == 1
    machine.installs("--at-once")
    assert machine.calls().count("docker compose up -d") == 2
    machine.environ = {"RUNS": "abc", "ROLLOUT": "1"}
    done = machine.run(answers={})
    assert done.returncode == 1
    assert "deploy/install --at-once" in done.stderr


def with_rollout(machine: Machine) -> Machine:
    rollout = machine.folder / "deploy" / "rollout"
    rollout.write_text('#!/bin/sh\necho "rollout $*" >>"$CALLS"\n')
    rollout.chmod(0o755)
    machine.environ = {"RUNS": "abc"}
    return machine


PORTS_ANEW = "docker compose up -d --no-deps ports"


@pytest.mark.parametrize("option", [("--http", "127.0.0.1:8080"), ("--https", "8443")])
def test_other_ports_of_a_running_platform_count_at_once(machine: Machine, option: tuple[str, str]) -> None:
    with_rollout(machine).environ |= {"PORTS_WANTED": "changed"}
    machine.installs(*option)
    calls = machine.calls()
    assert calls.index(PORTS_ANEW) < calls.index("rollout all")


def test_the_same_ports_are_left_alone(machine: Machine) -> None:
    with_rollout(machine).installs("--http", "8080")  # of a file that publishes more or others, as it should
    assert PORTS_ANEW not in machine.calls()


def test_what_else_changed_of_the_ports_waits_for_a_quiet_hour(machine: Machine) -> None:
    with_rollout(machine).environ |= {"PORTS_WANTED": "changed"}
    done = machine.run("--client-secret-file", str(machine.secret))
    assert done.returncode == 0
    assert f"cd {machine.compose} && docker compose up -d --no-deps ports" in done.stderr
    assert PORTS_ANEW not in machine.calls()
    assert "rollout all" in machine.calls()


def test_without_a_python_for_it_what_runs_is_replaced_at_once(machine: Machine) -> None:
    (machine.folder / "deploy" / "rollout").write_text("#!/bin/sh\nexit 1\n")
    (machine.folder / "deploy" / "rollout").chmod(0o755)
    machine.environ = {"RUNS": "abc"}
    done = machine.run("--client-secret-file", str(machine.secret))
    assert done.returncode == 0
    assert "which ends running answers" in done.stderr
    assert "docker compose up -d" in machine.calls()


def test_all_faults_are_told_at_once(machine: Machine) -> None:
    machine.environ = {"FREE": "100", "NO_DNS": "yes"}
    done = machine.run(answers={**GOOD, "--email": "x"})
    assert done.stderr.count("  expected ") == 5  # e-mail, secret, disk, two names


def test_without_certificates_from_outside_names_need_not_resolve(machine: Machine) -> None:
    machine.environ = {"NO_DNS": "yes"}
    machine.installs(answers={**GOOD, "--cert-mode": "local-ca"})


def test_older_compose_has_its_own_command(machine: Machine) -> None:
    machine.environ = {"COMPOSE_VERSION": "none"}
    machine.program("docker-compose", '#!/bin/sh\necho "old $*" >>"$CALLS"\n[ "$1" != version ] || echo 1.29.2\n')
    said = machine.installs("--isolation", "network", "--issuer", "none")
    assert "old up -d" in machine.calls()
    assert "docker-compose exec api-backend" in said


def test_shellcheck_has_nothing_to_say() -> None:
    require(shutil.which("shellcheck"), "shellcheck", "apt-get install shellcheck")
    scripts = [
        ROOT / "deploy" / "install",
        ROOT / "deploy" / "uninstall",
        *sorted((ROOT / "deploy" / "install.d").glob("*.sh")),
    ]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
