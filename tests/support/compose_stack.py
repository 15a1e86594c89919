"""The whole platform by Compose on the machine's engine, for tests/docker. Its subnets allow one at a time."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.docker_engine import BASE_IMAGE, DOCKER, ROOT, docker, require_engine
from tests.support.ports import free_port
from tests.support.require import require
from tests.support.stack import wait_for

COMPOSE_DIR = ROOT / "deploy" / "compose"
IMAGES = (
    "streaming-proxy",
    "api-backend",
    "streaming-proxy-manager",
    "web-app",
    "nginx-proxy",
    "certbot",
    "redis",
)
SERVICES = {"nginx-proxy": 1, "web-app": 1, "api-backend": 3, "streaming-proxy-manager": 1, "certbot": 1, "redis": 1}
DOMAIN = "llm.example"
OIDC_SECRET = "test-" + secrets.token_hex(16)
BASES = (BASE_IMAGE, "node:20-bookworm-slim", "redis:7-bookworm")


def compose_words() -> list[str]:
    """Return the command of the Compose that is there; skip the test when there is none."""
    if subprocess.run([DOCKER, "compose", "version"], capture_output=True, timeout=20).returncode == 0:
        return [DOCKER, "compose"]
    require(shutil.which("docker-compose"), "Docker Compose", "apt-get install docker-compose")
    return ["docker-compose"]


def built_images() -> str:
    """Return the tag of all images, built from this tree; C2L_TEST_TAG names ones that are built already."""
    require_engine()
    given = os.environ.get("C2L_TEST_TAG")
    if given:
        return given
    for base in BASES:
        found = subprocess.run([DOCKER, "image", "inspect", base], capture_output=True, timeout=20).returncode == 0
        require(found, f"the image {base}", f"docker pull {base}, or scripts/base_images")
    for name in IMAGES:
        docker("build", "-q", "--network", "host", "-f", f"deploy/images/{name}/Dockerfile",
               "-t", f"cloudtolocalllm/{name}:test", ".", timeout=400)  # fmt: skip
    return "test"


@dataclass(frozen=True)
class Platform:
    """A running platform."""

    folder: Path
    """A copy of deploy/compose with its own .env and secrets."""
    project: str
    https: int
    http: int
    password: str
    """Redis's."""
    ca: Path

    def compose(self, *arguments: str, timeout: float = 180, check: bool = True) -> str:
        """Run Compose and return what it writes to standard output."""
        done = subprocess.run(
            [*compose_words(), *arguments], cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        return self.compose("ps", "-q", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that the engine tells of a container."""
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found

    def health(self) -> dict[str, list[str]]:
        """Return each service's containers' health."""
        return {
            service: [
                str(self.inspect(one)["State"].get("Health", {}).get("Status")) for one in self.containers(service)
            ]
            for service in SERVICES
        }

    def await_healthy(self, within: float, **replicas: int) -> None:
        """Wait until every container is there and healthy."""
        counts = SERVICES | {name.replace("_", "-"): count for name, count in replicas.items()}
        wanted = {name: ["healthy"] * count for name, count in counts.items()}

        def healthy() -> bool:
            found = self.health()
            if found != wanted:
                time.sleep(1)  # asking starts some twenty processes
            return found == wanted

        wait_for(healthy, within=within, what="every container to be healthy")

    def curl(self, path: str, *options: str, host: str = f"app.{DOMAIN}") -> str:
        """Ask the platform over TLS, checked against its own authority."""
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "20", "--cacert", str(self.ca), *options,
             "--resolve", f"{host}:{self.https}:127.0.0.1", f"https://{host}:{self.https}{path}"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, path: str, *options: str) -> int:
        """Return the status of an answer."""
        return int(self.curl(path, "-o", "/dev/null", "-w", "%{http_code}", *options))

    def address(self, container: str, network: str) -> str:
        """Return a container's address in one of the platform's networks."""
        networks = self.inspect(container)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_{network}"]["IPAddress"])


@contextlib.contextmanager
def running_platform() -> Iterator[Platform]:
    """Start the platform from nothing with a local authority's certificate; remove all of it at the end."""
    tag = built_images()
    require(shutil.which("curl"), "curl", "apt-get install curl")
    project = "c2ltest" + secrets.token_hex(3)
    with tempfile.TemporaryDirectory(prefix="c2l-compose-") as name:
        folder = Path(name) / "deploy" / "compose"
        shutil.copytree(COMPOSE_DIR, folder, ignore=shutil.ignore_patterns(".env", "secrets", "answers"))
        http, https, password = free_port(), free_port(), secrets.token_hex(16)
        (folder / "secrets").mkdir(mode=0o700)
        (folder / "secrets" / "redis-auth").write_text(f"requirepass {password}\n")
        (folder / "secrets" / "redis-url").write_text(f"redis://:{password}@redis:6379/0\n")
        (folder / "secrets" / "oidc-client-secret").write_text(OIDC_SECRET)
        (folder / ".env").write_text(
            f"COMPOSE_PROJECT_NAME={project}\nC2L_TAG={tag}\nC2L_DOMAIN={DOMAIN}\n"
            f"C2L_CERT_NAMES={DOMAIN},app.{DOMAIN}\nC2L_CERT_MODE=local-ca\n"
            f"C2L_HTTP=127.0.0.1:{http}\nC2L_HTTPS=127.0.0.1:{https}\n"
            f"C2L_DOCKER_GID={Path('/var/run/docker.sock').stat().st_gid}\n"
        )
        platform = Platform(folder, project, https, http, password, Path(name) / "ca.pem")
        try:
            platform.compose("up", "-d", "--no-build")
            platform.await_healthy(60)
            certbot = platform.containers("certbot")[0]
            docker("cp", f"{certbot}:/var/lib/c2l-certs/local-ca/ca.pem", str(platform.ca))
            yield platform
        finally:
            _remove(platform)


def _remove(platform: Platform) -> None:
    """Remove the platform, and the proxies that its manager made: they bind a folder in its volume."""
    volume = f"/{platform.project}_proxies/"
    platform.compose("rm", "-sf", "streaming-proxy-manager", check=False)
    for container in docker("ps", "-aq", "--filter", "name=c2l-proxy-").split():
        if volume in docker("inspect", "-f", "{{range .Mounts}}{{.Source}} {{end}}", container, check=False):
            docker("rm", "-f", "-v", container, check=False)
    platform.compose("down", "-v", "--remove-orphans", check=False)
