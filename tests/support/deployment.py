"""A deployment for many people as processes: API replicas on one Redis, a provider, a manager, an edge, homes."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from tests.support.engines import EngineProcess, demo_engine
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, running_provider, sign_in_at_provider
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer, running_redis
from tests.support.stack import ROOT, wait_for

from cloudtolocalllm.runtime.site import web_root

START_TIMEOUT = 40.0
STOP_TIMEOUT = 15.0
PROVIDER_NAME = "Example ID"
PROGRAM = (sys.executable, "-m", "cloudtolocalllm")
OURS = {"c2l-request": "1"}
"""What a page of ours says with every call."""


@dataclass
class Part:
    """One process, whose output goes into a file."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, within: float) -> int:
        """Return the exit status."""
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)
        self._close()

    def stop(self) -> int:
        """SIGTERM; SIGKILL for one that does not end. Returns the exit status."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close()
        return int(self.process.returncode)

    def _close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


@dataclass
class Deployment:
    """A running deployment. What the cloud keeps is below `root`; what homes keep is below `homes`."""

    root: Path
    homes: Path
    port: int
    names: tuple[str, ...]
    """Of the replicas."""
    redis: RedisServer
    provider: OidcProvider
    engine: EngineProcess
    manager: Mapping[str, object] = field(default_factory=dict)
    """Further settings of the manager."""
    parts: dict[str, Part] = field(default_factory=dict)
    """The newest of each name."""
    spawned: list[Part] = field(default_factory=list)

    @property
    def url(self) -> str:
        """What people open."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> Path:
        """The folder of the sockets."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The folder of the cloud's logs."""
        return self.root / "logs"

    def socket(self, name: str) -> Path:
        """Where a replica listens."""
        return self.run / f"api-{name}.sock"

    def reached(self, name: str) -> Path:
        """Return where other parts reach a replica, or the manager."""
        return self.run / "manager.sock" if name == "manager" else self.socket(name)

    @property
    def state(self) -> str:
        """Where replicas reach Redis."""
        return self.redis.url

    @property
    def server(self) -> str:
        """Where homes reach the edge."""
        return self.url

    def replica(self, name: str, cookies: httpx.Cookies | None = None, **headers: str) -> httpx.Client:
        """Return a client of one replica, as the edge is one."""
        transport = httpx.HTTPTransport(uds=str(self.socket(name)))
        given = {"host": f"127.0.0.1:{self.port}", "x-forwarded-for": "127.0.0.1", **headers}
        return httpx.Client(transport=transport, base_url=self.url, headers=given, cookies=cookies, timeout=10)

    def browser(self, **headers: str) -> httpx.Client:
        """Return a client of the edge that speaks as the page does."""
        return httpx.Client(base_url=self.url, headers={**OURS, "origin": self.url, **headers}, timeout=20)

    def store(self) -> Redis:
        """Return a client of Redis, for looking."""
        return Redis(port=self.redis.port)

    # --- the cloud's processes

    def start_api(self, name: str) -> Part:
        """Start a replica and wait until it serves."""
        part = self.spawn_api(name)
        self.await_api(name)
        return part

    def spawn_api(self, name: str) -> Part:
        """Start a replica."""
        return self._service(
            f"api-{name}",
            "api",
            listen=f"unix:{self.socket(name)}",
            data_dir=self.root / "cloud",
            manager=f"unix:{self.reached('manager')}",
            state=self.state,
            replica=name,
            public_url=self.url,
            audit_dir=self.root / "audit" / f"api-{name}",
            audit_origin=f"test/api-{name}",
            drain_grace=2,
            oidc_issuer=self.provider.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret_file=self.root.parent / "client-secret",
            oidc_name=PROVIDER_NAME,
            admin="groups=admins",
        )

    def await_api(self, name: str) -> None:
        """Wait until a replica serves."""

        def ready() -> bool:
            assert self.parts[f"api-{name}"].running, self.parts[f"api-{name}"].said()[-3000:]
            if not _accepts(self.socket(name)):  # httpx leaks the socket with which it tries in vain
                return False
            with contextlib.suppress(httpx.TransportError), self.replica(name) as client:
                return client.get("/readyz").status_code == 200
            return False

        wait_for(ready, within=START_TIMEOUT, what=f"replica {name} to get ready")

    def replace_apis(self, *, at_once: bool) -> None:
        """Replace all replicas: killed together, or one after the other."""
        if at_once:
            for name in self.names:
                self.parts[f"api-{name}"].kill()
        for name in self.names:
            if not at_once:
                self.parts[f"api-{name}"].stop()
            self.start_api(name)

    def start(self, **edge: object) -> None:
        """Start everything and wait until it serves.

        Args:
            edge: Further settings of the edge.
        """
        secret = self.root.parent / "client-secret"
        secret.write_text(CLIENT_SECRET)
        secret.chmod(0o600)
        services = self.root / "cloud" / "secrets" / "services" / "public"
        audit = self.root / "audit"
        self._service("manager", "manager", listen=f"unix:{self.run / 'manager.sock'}", service_keys=services,
                      run_dir=self.run, audit_dir=audit / "manager", audit_origin="test/manager",
                      **{"stop_grace": 2, **self.manager})  # fmt: skip
        for name in self.names:
            self.spawn_api(name)
        settings = {"listen_port": self.port, "drain_grace": 1, "audit_dir": audit / "edge", **edge}
        page = web_root()
        if page is not None:
            settings["web_root"] = page
        self._service("edge", "edge", api=",".join(f"unix:{self.reached(name)}" for name in self.names),
                      audit_origin="test/edge", **settings)  # fmt: skip
        for name in self.names:
            self.await_api(name)
        wait_for(self._edge_is_ready, within=START_TIMEOUT, what="the edge to get ready")

    def stop(self) -> None:
        """Stop the cloud's processes and whatever else was started here, the newest first."""
        while self.spawned:
            self.spawned.pop().stop()

    def _edge_is_ready(self) -> bool:
        assert self.parts["edge"].running, self.parts["edge"].said()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def _service(self, name: str, service: str, /, **settings: object) -> Part:
        prefix = f"C2L_{service.upper()}_"
        # stdin is the leash: when this process dies, however it dies, they end too
        given = {**settings, "leash_fd": 0}
        environ = {prefix + key.upper(): str(value) for key, value in given.items()}
        return self.spawn(name, (*PROGRAM, service), environ, self.logs)

    def spawn(
        self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None, logs: Path | None = None
    ) -> Part:
        """Start a process that ends with the deployment at the latest.

        Args:
            name: Also of its log, which goes on when there was one of that name before.
            command: Its words.
            environ: Further variables.
            logs: The log's folder; None for that of the homes.
        """
        folder = logs or self.homes
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("C2L_", "SSH_"))}
        with path.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environment, **(environ or {})},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        part = self.parts[name] = Part(name, process, path)
        self.spawned.append(part)
        return part

    # --- homes

    def login(self, home: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Part:
        """Start `bridge login` on a machine."""
        command = (*PROGRAM, "bridge", "login", "--server", self.server, "--name", home, *self._home(home))
        return self.spawn(f"login-{home}", (*command, *arguments), environ)

    def bridge(self, home: str, engine: str = "", environ: Mapping[str, str] | None = None) -> Part:
        """Start `bridge run` on a machine.

        Args:
            home: The machine.
            engine: URL of its engine; "" for the one that all share.
            environ: Further variables.
        """
        command = (*PROGRAM, "bridge", "run", "--server", self.server, "--engine", engine or self.engine.url)
        return self.spawn(f"bridge-{home}", (*command, "--name", home, *self._home(home)), environ)

    def credential(self, home: str) -> Path:
        """Return where a machine keeps its credential."""
        return self.homes / home / f"127.0.0.1-{self.port}.json"

    def _home(self, home: str) -> tuple[str, str]:
        return "--data-dir", str(self.homes / home)

    def cli(self, *arguments: str, check: bool = True, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on the cloud's data directory."""
        command = [*PROGRAM, *arguments, "--data-dir", str(self.root)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=check, env={**os.environ, **environ}
        )


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def sign_in(deployment: Deployment, account: str, **headers: str) -> Iterator[httpx.Client]:
    """Open a client that is signed in with the provider."""
    with deployment.browser(**headers) as browser:
        go_through(browser, account)
        yield browser


def go_through(browser: httpx.Client, account: str) -> None:
    """Sign a client in with the provider."""
    started = browser.get("/api/auth/oidc/start")
    assert started.status_code == 302, started.text

    async def through() -> str:
        async with httpx.AsyncClient(timeout=20) as at_provider:
            return await sign_in_at_provider(at_provider, started.headers["location"], account)

    # a thread of its own: on this one Playwright's loop may run
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(lambda: asyncio.run(through())).result(30)
    done = browser.get(back)
    assert done.headers.get("location") == "/", done.headers


def decide(client: httpx.Client, request: str, what: str = "approve") -> dict[str, Any]:
    """Click on the page that a machine's pairing leads to; return what the page is told."""
    path = f"/api/bridge/pairing/requests/{request}"
    assert client.get(path).status_code == 200
    answer = client.post(f"{path}/{what}", json={})
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    return value


def paired(deployment: Deployment, client: httpx.Client, home: str, engine: str = "") -> Part:
    """Pair a machine by code, start its bridge, and wait until it is connected."""
    login = deployment.login(home, "--no-browser")
    decide(client, shown_code(login))
    assert login.wait(30) == 0, login.said()
    running = deployment.bridge(home, engine)
    await_connected(client, home, running)
    return running


def await_connected(client: httpx.Client, home: str, running: Part) -> None:
    """Wait until a machine's bridge is connected."""

    def connected() -> bool:
        assert running.running, running.said()
        found = bridges(client)
        return home in found and bool(found[home]["connected"])

    wait_for(connected, within=START_TIMEOUT, what=f"{home} to be connected")


def shown_code(login: Part, within: float = 20.0) -> str:
    """Return the code that a `bridge login --no-browser` shows."""
    found: list[str] = []

    def shown() -> bool:
        assert login.running, login.said()
        found[:] = re.findall(r"enter the code\s+([A-Z]{4}-[A-Z]{4})", login.said())
        return bool(found)

    wait_for(shown, within=within, what="a code to be shown")
    return found[0]


def opened_page(login: Part, file: Path, within: float = 20.0) -> str:
    """Return the address that a `bridge login` opened with `fake_browser`."""

    def opened() -> bool:
        assert login.running, login.said()
        return file.exists() and file.read_text().endswith("\n")

    wait_for(opened, within=within, what="a page to be opened")
    return file.read_text().strip()


def fake_browser(folder: Path) -> tuple[dict[str, str], Path]:
    """Return variables under which a program opens pages with a browser of ours, and the file it writes them to."""
    folder.mkdir(parents=True, exist_ok=True)
    file, script = folder / "opened", folder / "browser"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" > "{file}"\n')
    script.chmod(0o700)
    return {"DISPLAY": ":99", "BROWSER": f"{script} %s"}, file


def bridges(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """Return one's bridges by name."""
    answer = client.get("/api/bridge")
    assert answer.status_code == 200, answer.text
    return {bridge["name"]: bridge for bridge in answer.json()}


def await_refusal(client: httpx.Client, path: str, within: float) -> float:
    """Ask until it is refused with 401; return the seconds it took."""
    began = time.monotonic()
    wait_for(lambda: client.get(path).status_code == 401, within=within, what=f"{path} to be refused")
    return time.monotonic() - began


@contextlib.contextmanager
def running_deployment(
    replicas: int = 1,
    *,
    engine: Mapping[str, object] | None = None,
    manager: Mapping[str, object] | None = None,
    redis_options: Sequence[str] = (),
    kind: type[Deployment] = Deployment,
    **edge: object,
) -> Iterator[Deployment]:
    """Run a deployment until the block ends; skips the test where Redis or Node.js is missing.

    Args:
        replicas: Of the API: 1 to 3.
        engine: Settings of the demo engine.
        manager: Further settings of the manager.
        redis_options: More of the command line of Redis.
        kind: Deployment, or one that starts its parts in another way.
        edge: Further settings of the edge.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c2l-test-")))
        root, homes = folder / "d", folder / "homes"
        for path in (root, homes, root / "run", root / "redis"):
            path.mkdir(mode=0o700)
        port = free_port()
        store = stack.enter_context(running_redis(root / "redis", options=redis_options))
        provider = stack.enter_context(running_provider(f"http://127.0.0.1:{port}"))
        given = {"load_seconds": 0, "prefill_seconds": 0, "models": "demo:latest", **(engine or {})}
        home_engine = stack.enter_context(demo_engine(**given))
        deployment = kind(root, homes, port, tuple("abc"[:replicas]), store, provider, home_engine, manager or {})
        try:
            deployment.start(**edge)
            yield deployment
        finally:
            deployment.stop()
