"""The whole platform by Compose on the machine's engine, for tests/docker; several at once.

Who signs in, pairs a machine and asks: `tests.support.compose_home`.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tests.support.compose_authority import authority
from tests.support.compose_subnet import free_subnet
from tests.support.docker_engine import BASE_IMAGE, DOCKER, ROOT, docker, require_engine, require_image
from tests.support.ports import free_port
from tests.support.require import require
from tests.support.stack import wait_for

from cloudtolocalllm.manager.drivers.docker.records import IDENTITY
from cloudtolocalllm.manager.drivers.docker.spec import MANAGED_BY, container_name

COMPOSE_DIR = ROOT / "deploy" / "compose"
IMAGES = (
    "streaming-proxy",
    "api-backend",
    "streaming-proxy-manager",
    "web-app",
    "nginx-proxy",
    "ports",
    "certbot",
    "redis",
)
START_TIMEOUT = 180.0
"""Seconds that tests wait for it, on a machine that is busy; 60 from nothing to healthy are promised."""
SERVICES = {
    "nginx-proxy": 1,
    "ports": 1,
    "web-app": 1,
    "api-backend": 3,
    "streaming-proxy-manager": 1,
    "certbot": 1,
    "redis": 1,
}
DOMAIN = "llm.example"
OIDC_SECRET = "test-" + secrets.token_hex(16)
BASES = (BASE_IMAGE, "node:20-bookworm-slim", "redis:7-bookworm")


@functools.cache
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
        require_image(base)
    return _built()


@functools.cache
def _built() -> str:
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
    """What its certificate is checked with."""
    subnet: str
    """The first half of its networks' addresses."""
    took: float = 0.0
    """Seconds from `up -d` to healthy with a certificate."""

    @property
    def url(self) -> str:
        """The app's address; no DNS knows it but `compose_home`'s clients."""
        return f"https://app.{DOMAIN}:{self.https}"

    def compose(self, *arguments: str, timeout: float = 180, check: bool = True) -> str:
        """Run Compose and return what it writes to standard output."""
        done = subprocess.run(
            [*compose_words(), *arguments], cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers that run, in the order of their numbers.

        Asked of the engine: Compose itself takes a second to start.
        """
        of_service = [
            word
            for label in (f"project={self.project}", f"service={service}", "oneoff=False")
            for word in ("--filter", f"label=com.docker.compose.{label}")
        ]
        number = '{{.Label "com.docker.compose.container-number"}}'
        lines = docker("ps", "--no-trunc", "--format", f"{number} {{{{.ID}}}}", *of_service).splitlines()
        return [one for _, one in sorted((int(line.split()[0]), line.split()[1]) for line in lines)]

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

    def await_healthy(self, within: float = START_TIMEOUT, **replicas: int) -> None:
        """Wait until every container is there and healthy.

        Args:
            within: Seconds.
            replicas: How many containers of a service are wanted, where it is not the usual number.
        """
        counts = SERVICES | {name.replace("_", "-"): count for name, count in replicas.items()}
        wanted = {name: ["healthy"] * count for name, count in counts.items()}

        def healthy() -> bool:
            found = self.health()
            if found != wanted:
                time.sleep(1)  # asking starts some twenty processes
            return found == wanted

        wait_for(healthy, within=within, what="every container to be healthy")

    def await_certificate(self, root: bytes | None, within: float) -> None:
        """Wait until TLS is answered with a certificate that holds.

        Args:
            root: The authority's; None for the platform's own authority.
            within: Seconds.
        """
        if root is None:
            certbot = self.containers("certbot")[0]
            docker("cp", f"{certbot}:/var/lib/c2l-certs/local-ca/ca.pem", str(self.ca))
        else:
            self.ca.write_bytes(root)

        def holds() -> bool:
            try:
                return bool(self.curl("/"))
            except AssertionError:
                time.sleep(0.5)
                return False

        wait_for(holds, within=within, what="a certificate that holds")

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

    def tell(self) -> str:
        """Return what a person looks at when something is wrong: the states, and the last words of each container."""
        told = [self.compose("ps", "-a", check=False)]
        for container in self.compose("ps", "-aq", check=False).split():
            state = docker("inspect", "-f", "{{.Name}} {{json .State}}", container, check=False)
            done = subprocess.run(
                [DOCKER, "logs", "--tail", "8", container], capture_output=True, text=True, timeout=20
            )
            told.append(f"{state}\n{(done.stdout + done.stderr)[-2500:]}")
        return "\n\n".join(told)

    def made_by_manager(self) -> str:
        """Return the engine's filter for the containers and networks that the platform's manager made."""
        made = self.compose("ps", "-aq", "streaming-proxy-manager", check=False).split()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "id"
            if made:  # running or not; there is none before it first ran
                docker("cp", f"{made[0]}:/run/c2l/instances/{IDENTITY}", str(path), check=False)
            return f"label={MANAGED_BY}={path.read_text() if path.exists() else 'none'}"

    def proxies(self) -> dict[str, str | None]:
        """Return the names of the containers of all proxies, and whose each is: None for spares."""
        manager = self.containers("streaming-proxy-manager")[0]
        text = docker("exec", manager, "sh", "-c", "cat /run/c2l/instances/px-*.json", check=False)
        found, position, decoder = {}, 0, json.JSONDecoder()
        while position < len(text):
            record, position = decoder.raw_decode(text, position)
            found[container_name(record["id"])] = record["user"]
        return found


@contextlib.contextmanager
def running_platform(
    certificate: Literal["local-ca", "acme"] = "local-ca", environ: Mapping[str, object] | None = None
) -> Iterator[Platform]:
    """Start the platform from nothing, wait until it is healthy and has its certificate; remove all of it at the end.

    Args:
        certificate: Whose: the platform's own authority's, or one that is asked by ACME.
        environ: Further variables of .env.
    """
    tag = built_images()
    require(shutil.which("curl"), "curl", "apt-get install curl")
    project = "c2ltest" + secrets.token_hex(3)
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c2l-compose-")))
        folder = top / "deploy" / "compose"
        shutil.copytree(COMPOSE_DIR, folder, ignore=shutil.ignore_patterns(".env", "secrets", "answers"))
        http, https, password = free_port(), free_port(), secrets.token_hex(16)
        _write_secrets(folder, password)
        root: bytes | None = None
        given: dict[str, str] = {}
        if certificate == "acme":
            pebble, given = stack.enter_context(authority(top, folder / "own", http))
            root = pebble.root()
        subnet = stack.enter_context(free_subnet())
        values = {
            "COMPOSE_PROJECT_NAME": project,
            "C2L_TAG": tag,
            "C2L_PORTS_TAG": tag,
            "C2L_SUBNET": subnet,
            "C2L_DOMAIN": DOMAIN,
            "C2L_CERT_NAMES": f"{DOMAIN},app.{DOMAIN}",
            "C2L_CERT_MODE": certificate,
            "C2L_HTTP": f"127.0.0.1:{http}",
            "C2L_HTTPS": f"127.0.0.1:{https}",
            "C2L_HTTPS_PORT": https,
            "C2L_PORT_SUFFIX": f":{https}",
            "C2L_DOCKER_GID": Path("/var/run/docker.sock").stat().st_gid,
            **given,
            **(environ or {}),
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        platform = Platform(folder, project, https, http, password, top / "ca.pem", subnet)
        try:
            began = time.monotonic()
            platform.compose("up", "-d", "--no-build")
            platform.await_healthy()
            platform.await_certificate(root, START_TIMEOUT)
            yield replace(platform, took=time.monotonic() - began)
        except BaseException as error:
            error.add_note(platform.tell())
            raise
        finally:
            _remove(platform)


def _write_secrets(folder: Path, password: str) -> None:
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "secrets" / "redis-auth").write_text(f"requirepass {password}\n")
    (folder / "secrets" / "redis-url").write_text(f"redis://:{password}@redis:6379/0\n")
    (folder / "secrets" / "oidc-client-secret").write_text(OIDC_SECRET)


def _remove(platform: Platform) -> None:
    """Remove the platform, and what its manager made."""
    mine = platform.made_by_manager()
    platform.compose("kill", check=False)  # nobody waits for an answer any more
    platform.compose("rm", "-sf", "streaming-proxy-manager", check=False)
    if containers := docker("ps", "-aq", "--filter", mine).split():
        docker("rm", "-f", "-v", *containers, check=False)
    platform.compose("rm", "-sf", "nginx-proxy", check=False)  # which may be attached to the proxies' networks
    if networks := docker("network", "ls", "-q", "--filter", mine).split():
        docker("network", "rm", *networks, check=False)
    platform.compose("down", "-v", "--remove-orphans", check=False)
