"""A made-up server with a copy of deploy/, whose programs write down how they are called: for installer tests."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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
  "info --format {{.LiveRestoreEnabled}}"*) echo "${LIVE_RESTORE:-true inactive}" ;;
  "network ls -q --filter"*) [ -z "$OUR_NETWORKS" ] || echo "$OUR_NETWORKS" ;;
  "network ls -q") echo "$ENGINE_NETWORK ${OUR_NETWORKS}" ;;
  "network inspect"*) [ -z "$ENGINE_NETWORK" ] || echo "$ENGINE_NETWORK_RANGE other_default" ;;
  "ps -q "*"project=cloudtolocalllm --filter publish="*) printf '%s' "$OURS" ;;
  "ps -q "*"project=cloudtolocalllm --filter label="*) [ -z "$RUNS" ] || echo "$RUNS" ;;
  "compose ps -q") echo one ;;
  "ps -aq "*"project=cloudtolocalllm --filter label=com.docker.compose.service=ports") echo "${RUNS:+ports-1}" ;;
  "compose config --hash ports") echo "ports ${PORTS_WANTED:-same}" ;;
  "inspect -f {{index .Config.Labels"*) echo same ;;
  "inspect -f {{range .HostConfig.PortBindings"*) echo " :80  :443 " ;;
  "inspect "*) echo "healthy /one" ;;
esac
"""
NO_ROUTES = (
    "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    "eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n"
    "eth0 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
)
OURS = "0123456789ab"
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
        before, called = self.snapshot(), len(self.calls())
        done = self.run("--client-secret-file", str(self.secret), *options, answers=answers)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"expected {expected}" in done.stderr
        assert "Nothing was changed" in done.stderr
        assert self.snapshot() == before
        assert not any("up -d" in call or "build" in call for call in self.calls()[called:])


def made_machine(folder: Path) -> Machine:
    """Return a server that fits."""
    made = Machine(folder)
    shutil.copytree(
        ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns(".env", "secrets", "answers", "images")
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
