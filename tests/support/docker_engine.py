"""The machine's Docker engine, for tests: asked by its command line, so that the driver is not checked by itself."""

import functools
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from tests.support.require import require

ROOT = Path(__file__).resolve().parents[2]
RUN_LABEL = "org.cloudtolocalllm.test-run"
"""On all that tests make by hand, so that they remove nothing else."""
PROXY_IMAGE = "cloudtolocalllm/streaming-proxy:test"
BASE_IMAGE = "python:3.11-slim-bookworm"
DOCKER = next((path for path in ("/usr/bin/docker",) if Path(path).exists()), shutil.which("docker") or "docker")
"""A distribution's own before any other in the path: it brings what BuildKit needs."""
SLEEP = "import signal, threading; signal.signal(15, lambda *_: exit(0)); threading.Event().wait()"


def docker(*arguments: str, host: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """Run docker and return what it writes."""
    environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
    command = [DOCKER, *(("-H", host) if host else ()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environ, cwd=ROOT)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command[:6])} failed: {done.stderr[-1000:]}")
    return done.stdout.strip()


def status(*arguments: str, timeout: float = 60) -> tuple[int, str]:
    """Run docker and return its exit status and all that it writes."""
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


@functools.cache
def _engine_is_there() -> bool:
    if shutil.which(DOCKER) is None:
        return False
    return subprocess.run([DOCKER, "info"], capture_output=True, timeout=20).returncode == 0


@functools.cache
def _image_is_there(image: str) -> bool:
    return subprocess.run([DOCKER, "image", "inspect", image], capture_output=True, timeout=20).returncode == 0


def require_image(image: str) -> None:
    """Skip the test when an image that others are made of is missing."""
    require(_image_is_there(image), f"the image {image}", f"docker pull {image}, or scripts/base_images")


def docker_is_there() -> bool:
    """Return whether an engine answers and the proxy's image can be built."""
    return _engine_is_there() and _image_is_there(BASE_IMAGE)


def require_engine() -> None:
    """Skip the test when no engine answers."""
    require(_engine_is_there(), "a Docker engine", "apt-get install docker.io, and start dockerd")


def proxy_image() -> str:
    """Return the name of the proxy's image, built from this tree; skip the test when that cannot be done here."""
    require_engine()
    require_image(BASE_IMAGE)
    return _built()


@functools.cache
def _built() -> str:
    docker("build", "-q", "-f", "deploy/images/streaming-proxy/Dockerfile", "-t", PROXY_IMAGE, ".", timeout=300)
    return PROXY_IMAGE


def bystander(*options: str) -> str:
    """Start a container that does nothing, and return its name; it has Python and a network."""
    name = "c2l-test-" + secrets.token_hex(6)
    try:
        docker(
            "run", "-d", "--init", "--name", name, "--label", RUN_LABEL, *options,
            "--entrypoint", "python3", proxy_image(), "-S", "-c", SLEEP,
        )  # fmt: skip
    except AssertionError:
        remove(name)  # made, and not started
        raise
    return name


def remove(*containers: str) -> None:
    """Remove containers, if they are there."""
    docker("rm", "-f", "-v", *containers, check=False)


def process_of(container: str) -> int:
    """Return the process id of a container's first process, as this machine counts."""
    return int(docker("inspect", "-f", "{{.State.Pid}}", container))


def inside(container: str, program: str, *arguments: str) -> tuple[int, str]:
    """Run a Python program in a container, as its user and within its limits."""
    return status("exec", container, "python3", "-S", "-c", program, *arguments)
