"""A real OpenID provider on loopback: npm `oidc-provider`, in a process of its own."""

import contextlib
import fcntl
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from tests.support.ports import free_port
from tests.support.require import require

FOLDER = Path(__file__).parent
CLIENT_ID = "c2l"
CLIENT_SECRET = "c2l-test-secret"
START_TIMEOUT = 20.0
INSTALL_TIMEOUT = 120.0


@dataclass
class OidcProvider:
    """The provider, which can be stopped and started again."""

    app: str
    """The address of the application under test, as browsers see it."""
    back_channel: str
    """Its address as the provider sees it."""
    conform: bool = False
    """Whether ID tokens hold no name and e-mail, which are then at the userinfo endpoint."""
    port: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        options = {"port": self.port, "control": self.control, "app": self.app, "back_channel": self.back_channel}
        command = ["node", str(FOLDER / "provider.mjs"), json.dumps({**options, "conform": self.conform})]
        self.process = subprocess.Popen(
            command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        watchdog = threading.Timer(START_TIMEOUT, self.process.kill)
        watchdog.start()
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"expected the provider to listen; it ended with status {self.process.wait(5)}")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self._control("POST", "/rotate")

    def disable(self, account: str) -> None:
        """Let somebody no more."""
        self._control("POST", f"/disable?sub={account}")

    def requests(self) -> dict[str, int]:
        """Return how often each of its paths was asked for since it started."""
        return dict(self._control("GET", "/requests"))

    def _control(self, method: str, target: str) -> Any:
        response = httpx.request(method, f"http://127.0.0.1:{self.control}{target}", timeout=5, trust_env=False)
        assert response.status_code == 200
        return response.json()


@contextlib.contextmanager
def running_provider(app: str, *, back_channel: str | None = None, conform: bool = False) -> Iterator[OidcProvider]:
    """Run a provider until the block ends. Skips the test when Node.js or its package cannot be had.

    Args:
        app: The address of the application under test, as browsers see it.
        back_channel: Its address as the provider sees it; None for the same.
        conform: Whether ID tokens hold no name and e-mail.
    """
    install()
    provider = OidcProvider(app, back_channel or app, conform)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


def install() -> None:
    """Install the package on first use; of several test processes, one does."""
    require(shutil.which("node") and shutil.which("npm"), "Node.js 20 with npm", "apt-get install nodejs npm")
    if _installed():
        return
    with (FOLDER / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed():
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=FOLDER, capture_output=True, check=False, timeout=INSTALL_TIMEOUT)
    require(_installed(), "npm's oidc-provider", f"npm ci in {FOLDER.name}, which needs the npm registry")


def _installed() -> bool:
    return (FOLDER / "node_modules" / "oidc-provider" / "package.json").exists()


# What a browser does with the provider's pages.


async def sign_in_at_provider(browser: httpx.AsyncClient, url: str, account: str) -> str:
    """Follow the provider's pages from an authorisation request on, as `account`.

    Returns:
        Where the provider sends the browser in the end; nobody has gone there yet.
    """
    return await _through(browser, url, {"login": account})


async def refuse_at_provider(browser: httpx.AsyncClient, url: str) -> str:
    """As `sign_in_at_provider`, but press Cancel."""
    return await _through(browser, url, {"abort": "1"})


async def sign_out_at_provider(browser: httpx.AsyncClient, url: str) -> str:
    """Follow the provider's pages from an end-session request on; returns where the browser is sent in the end."""
    response = await browser.get(url)
    assert response.status_code == 200, response.text
    form = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', response.text))
    action = re.search(r'action="([^"]+)"', response.text)
    assert action is not None
    response = await browser.post(html.unescape(action[1]), data={**form, "logout": "yes"})
    return await _leave(browser, response, url)


async def _through(browser: httpx.AsyncClient, url: str, form: dict[str, str]) -> str:
    response = await browser.get(url)
    for _ in range(10):
        if response.status_code in (302, 303):
            target = urljoin(str(response.url), response.headers["location"])
            if not target.startswith(_origin(url)):
                return target
            response = await browser.get(target)
        else:
            assert response.status_code == 200, response.text
            response = await browser.post(str(response.url), data=form)
    raise AssertionError("expected the provider to send the browser back")


async def _leave(browser: httpx.AsyncClient, response: httpx.Response, start: str) -> str:
    for _ in range(10):
        assert response.status_code in (302, 303), response.text
        target = urljoin(str(response.url), response.headers["location"])
        if not target.startswith(_origin(start)):
            return target
        response = await browser.get(target)
    raise AssertionError("expected the provider to send the browser back")


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3]) + "/"
