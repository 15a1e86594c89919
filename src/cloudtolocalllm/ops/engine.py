"""Docker and Compose by their command lines: every call has a deadline, and nothing is passed through a shell."""

import json
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cloudtolocalllm.ops.rollout_plan import Container

LOOK = 60.0
"""Seconds for a question."""
MAKE = 300.0
"""Seconds for making containers: Compose asks much and a busy machine is slow."""
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ONE_OFF = "com.docker.compose.oneoff"
CONFIG = "com.docker.compose.config-hash"


class OpsError(Exception):
    """Something cannot be done; the text says what, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended."""

    status: int
    out: str
    err: str


class Runner(Protocol):
    """Runs programs and tells the time."""

    def run(self, words: Sequence[str], timeout: float) -> Done:
        """Run a program in the project's folder.

        Raises:
            OpsError: It is not there, or did not end within `timeout` seconds.
        """
        ...

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Programs:
    """The real ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, words: Sequence[str], timeout: float) -> Done:
        """See `Runner.run`."""
        try:
            done = subprocess.run(  # noqa: S603 - the words are ours and never a shell's
                list(words), cwd=self._folder, capture_output=True, text=True, errors="replace",
                timeout=timeout, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise OpsError(f"expected the program {words[0]}; is Docker installed?") from None
        except subprocess.TimeoutExpired:
            said = " ".join(words[:3])
            raise OpsError(f"expected `{said} ...` to end within {timeout:.0f} s; does the engine hang?") from None
        return Done(done.returncode, done.stdout, done.stderr)

    def now(self) -> float:
        """See `Runner.now`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Runner.sleep`."""
        time.sleep(seconds)


class Engine:
    """What a rollout asks of Docker and Compose."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._words = self._find_compose()

    def _find_compose(self) -> tuple[str, ...]:
        if self._runner.run(("docker", "compose", "version"), LOOK).status == 0:
            return ("docker", "compose")
        try:
            found = self._runner.run(("docker-compose", "version"), LOOK).status == 0
        except OpsError:
            found = False
        if not found:
            raise OpsError("expected Docker Compose: https://docs.docker.com/compose/install/")
        return ("docker-compose",)

    @property
    def command(self) -> str:
        """Compose's command, for people."""
        return " ".join(self._words)

    def compose(self, *words: str, timeout: float = LOOK) -> str:
        """Run Compose and return what it prints.

        Raises:
            OpsError: It failed; the text ends with what it said.
        """
        done = self._runner.run((*self._words, *words), timeout)
        if done.status:
            raise OpsError(f"`{self.command} {' '.join(words)}` failed:\n{_tail(done.err or done.out)}")
        return done.out

    def docker(self, *words: str, timeout: float = LOOK) -> str:
        """Run docker and return what it prints.

        Raises:
            OpsError: It failed.
        """
        done = self._runner.run(("docker", *words), timeout)
        if done.status:
            raise OpsError(f"`docker {' '.join(words[:3])} ...` failed:\n{_tail(done.err or done.out)}")
        return done.out

    def image(self, name: str) -> str:
        """Return the id of an image; empty when the engine does not have it."""
        done = self._runner.run(("docker", "image", "inspect", "-f", "{{.Id}}", name), LOOK)
        return "" if done.status else done.out.strip()

    def config_hash(self, service: str) -> str:
        """Return the hash that Compose would put on a new container of a service."""
        words = self.compose("config", "--hash", service).split()
        return words[1] if words[:1] == [service] and len(words) == 2 else ""

    def project(self) -> str:
        """Return the project's name.

        Raises:
            OpsError: Nothing of it runs.
        """
        ids = self.compose("ps", "-q").split()
        if not ids:
            raise OpsError(f"expected a platform that runs; start it with `{self.command} up -d`")
        label = "{{index .Config.Labels " + json.dumps(PROJECT) + "}}"
        return self.docker("inspect", "-f", label, ids[0]).strip()

    def containers(self, project: str, service: str) -> list[Container]:
        """Return a service's containers, those too that do not run; oldest first."""
        filters = (f"label={PROJECT}={project}", f"label={SERVICE}={service}", f"label={ONE_OFF}=False")
        words = [word for one in filters for word in ("--filter", one)]
        ids = self.docker("ps", "-aq", "--no-trunc", *words).split()
        return self.inspect(reversed(ids))

    def inspect(self, ids: Iterable[str]) -> list[Container]:
        """Return containers as they are now; those that are gone are left out."""
        wanted = list(ids)
        if not wanted:
            return []
        done = self._runner.run(("docker", "container", "inspect", *wanted), LOOK)
        try:
            found: list[dict[str, Any]] = json.loads(done.out or "[]")
            return [_container(one) for one in found]
        except (ValueError, KeyError, TypeError):
            raise OpsError("expected docker to describe containers as JSON") from None

    def logs(self, container: str, lines: int) -> str:
        """Return the end of what a container wrote."""
        done = self._runner.run(("docker", "logs", "--tail", str(lines), container), LOOK)
        return (done.out + done.err).strip()[-6000:]


def _container(value: dict[str, Any]) -> Container:
    state = value["State"]
    return Container(
        id=str(value["Id"]),
        name=str(value["Name"]).lstrip("/"),
        image=str(value["Image"]),
        config=str((value["Config"]["Labels"] or {}).get(CONFIG, "")),
        running=bool(state["Running"]) and not state.get("Restarting", False),
        health=str((state.get("Health") or {}).get("Status", "")),
        restart=str(value["HostConfig"]["RestartPolicy"]["Name"]),
    )


def _tail(text: str) -> str:
    return text.strip()[-1500:]
