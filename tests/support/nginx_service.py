"""The holder of the ports and `nginx run` as processes of their own, as their containers have them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.nginx_server import MODULES, require_nginx
from tests.support.ports import free_port

START_TIMEOUT = 15.0
DOMAIN = "llm.example"


@dataclass
class Running:
    """A process and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20) -> int:
        return self.process.wait(timeout)

    def await_said(self, text: str, times: int = 1, within: float = START_TIMEOUT) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + within
        while self.said().count(text) < times:
            late = self.process.poll() is not None or time.monotonic() > deadline
            assert not late, f"expected {text!r}: {self.said()[-2000:]}"
            time.sleep(0.02)


@dataclass
class Front:
    """Ports that are held, and nginx after nginx that serves them."""

    folder: Path
    """Short: Unix sockets lie in it."""
    environ: Mapping[str, str]
    """Of every nginx: where the API is, and whatever a test wants."""
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    processes: list[Running] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "ports.sock"

    @property
    def addresses(self) -> list[str]:
        return [f"{self.host}:{self.port}", f"{self.host}:{self.tls_port}"]

    def holder(self) -> Running:
        """Start the holder of the ports."""
        found = self._run("ports", str(self.path), *self.addresses, environ={})
        found.await_said("holds")
        return found

    def nginx(self, *, served: bool = True) -> Running:
        """Start an nginx; wait until it serves."""
        name = f"n{len(self.processes)}"
        environ = {
            "C2L_EDGE_LISTEN_PORT": str(self.port),
            "C2L_EDGE_DOMAIN": DOMAIN,
            "C2L_NGINX_TLS_PORT": str(self.tls_port),
            "C2L_NGINX_PORTS": str(self.path),
            "C2L_NGINX_STATE_DIR": str(self.folder / name),
            "C2L_NGINX_MODULES_DIR": str(MODULES),
            "C2L_NGINX_CERTIFICATE_DIR": str(self.folder / "certs"),
            "C2L_NGINX_CONNECTIONS": "2048",
            "C2L_NGINX_USER": "root" if os.geteuid() == 0 else "",
            "C2L_NGINX_WATCH_INTERVAL": "0.1",
            **{f"C2L_EDGE_LIMIT_{kind}": "off" for kind in ("SIGN_IN", "API", "DATA", "STATIC")},
            **self.environ,
        }
        holders = [one for one in self.processes if "ports" in one.log.name and one.process.poll() is None]
        before = sum(one.said().count("a client serves now") for one in holders)
        found = self._run("nginx", "run", environ=environ)
        if served:
            holders[-1].await_said("a client serves now", times=before + 1)
        return found

    def close(self) -> None:
        """End all that runs; the holders first, for then no nginx waits for another one."""
        for one in sorted(self.processes, key=lambda one: "ports" not in one.log.name):
            if one.process.poll() is None:
                one.tell(signal.SIGTERM)
        for one in self.processes:
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.wait()

    def _run(self, *words: str, environ: Mapping[str, str]) -> Running:
        log = self.folder / f"{words[0]}-{len(self.processes)}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("C2L_")}
        path = os.environ.get("PATH", "") + ":/usr/sbin"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloudtolocalllm", *words],
                stdout=out, stderr=out, env={**inherited, **environ, "PATH": path},
            )  # fmt: skip
        self.processes.append(Running(process, log))
        return self.processes[-1]


@contextlib.contextmanager
def running_front(folder: Path, environ: Mapping[str, str]) -> Iterator[Front]:
    """Give ports that nobody holds yet; end afterwards what was started. Skips the test where nginx is missing."""
    require_nginx()
    front = Front(folder, environ)
    try:
        yield front
    finally:
        front.close()
