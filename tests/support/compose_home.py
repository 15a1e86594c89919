"""A person of a platform by Compose: signs in, has an API key and a machine at home, and asks, all over TLS."""

import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.support.compose_stack import DOMAIN, Platform
from tests.support.deployment import OURS, Part, await_connected, decide, shown_code
from tests.support.engines import EngineProcess
from tests.support.require import require
from tests.support.stack import ROOT

HERE = "127.0.0.1"
PROGRAM = (sys.executable, "-m", "cloudtolocalllm")


class Transport(httpx.HTTPTransport):
    """Finds the platform's names here, though no DNS knows them; the certificate is checked for the name."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        there = httpx.Request(
            request.method,
            request.url.copy_with(host=HERE),
            headers=request.headers,  # with Host as it was
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return super().handle_request(there)


@dataclass(frozen=True)
class Home:
    """A person with a machine that is connected, and its engines."""

    platform: Platform
    browser: httpx.Client
    """Signed in, as the page is."""
    api_key: str
    engine: EngineProcess
    """The first of them."""
    bridge: Part
    """The process of the machine's bridge."""

    @property
    def url(self) -> str:
        """The app's address."""
        return self.platform.url

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"Bearer {self.api_key}"}

    def transport(self) -> Transport:
        """Return what an HTTP client needs to reach the platform."""
        return transport(self.platform)

    def client(self) -> httpx.Client:
        """Return a client that asks with the API key."""
        return httpx.Client(base_url=self.url, headers=self.headers, transport=self.transport(), timeout=60)

    def proxy(self) -> str:
        """Return the container of this person's own proxy."""
        (owned,) = [name for name, user in self.platform.proxies().items() if user is not None]
        return owned


def transport(platform: Platform) -> Transport:
    """Return what an HTTP client needs to reach a platform and to trust it."""
    trusting = ssl.create_default_context(cafile=str(platform.ca))
    return Transport(verify=trusting, limits=httpx.Limits(max_connections=200))


@contextlib.contextmanager
def signed_in(platform: Platform) -> Iterator[httpx.Client]:
    """Sign the owner in with a link that the operator makes, and yield a client that speaks as the page does."""
    link = platform.compose("exec", "-T", "api-backend", "cloudtolocalllm", "sign-in-link").strip()
    address, _, token = link.partition("#token=")
    assert address == f"{platform.url}/sign-in"
    headers = {**OURS, "origin": platform.url}
    with httpx.Client(base_url=platform.url, headers=headers, transport=transport(platform), timeout=20) as browser:
        done = browser.post("/api/auth/sign-in", json={"token": token})
        assert done.status_code == 204, done.text
        yield browser


def make_key(browser: httpx.Client, name: str = "test") -> str:
    """Make an API key as the page does."""
    made = browser.post("/api/auth/keys", json={"name": name, "days": 1})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def at_home(command: Sequence[str], hosts: Path) -> list[str]:
    """Return a command whose process finds the platform's names on this machine: in a mount namespace of its own."""
    require(shutil.which("unshare"), "unshare", "apt-get install util-linux")
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    return [*own, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts), *command]


def write_hosts(folder: Path, *names: str) -> Path:
    """Write a file in the form of /etc/hosts that knows further names as this machine."""
    path = folder / "hosts"
    path.write_text(f"{Path('/etc/hosts').read_text()}\n{HERE} {' '.join(names)}\n")
    return path


@dataclass
class _Machine:
    """A machine at home: its files, and how its programs are started."""

    platform: Platform
    folder: Path
    parts: list[Part]

    def start(self, name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Part:
        hosts = write_hosts(self.folder, DOMAIN, f"app.{DOMAIN}")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("C2L_", "SSH_"))}
        environment |= {"SSL_CERT_FILE": str(self.platform.ca), "PYTHONPATH": str(ROOT / "src"), **(environ or {})}
        path = self.folder / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                at_home((*PROGRAM, "bridge", *arguments, "--data-dir", str(self.folder)), hosts),
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        part = Part(name, process, path)
        self.parts.append(part)
        return part


@contextlib.contextmanager
def paired_home(platform: Platform, *engines: EngineProcess, name: str = "Home") -> Iterator[Home]:
    """Sign in, make a key, pair a machine by code, start its bridge, wait until it is connected; end it afterwards.

    Args:
        platform: A running one.
        engines: The machine's; at least one.
        name: The machine's.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c2l-home-")))
        browser = stack.enter_context(signed_in(platform))
        machine = _Machine(platform, folder, [])
        stack.callback(lambda: [part.stop() for part in machine.parts])
        login = machine.start("login", "login", "--server", platform.url, "--name", name, "--no-browser")
        decide(browser, shown_code(login))
        assert login.wait(30) == 0, login.said()
        served = [word for engine in engines for word in ("--engine", engine.url)]
        # Tests ask as plain clients do, which a bridge of a platform elsewhere serves only when told to.
        plain = {"C2L_BRIDGE_PLAIN": "on"}
        bridge = machine.start("bridge", "run", "--server", platform.url, "--name", name, *served, environ=plain)
        await_connected(browser, name, bridge)
        yield Home(platform, browser, make_key(browser), engines[0], bridge)
