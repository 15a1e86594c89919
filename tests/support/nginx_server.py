"""A real nginx for tests, as the project configures it: a process of its own on loopback, in a folder of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.support.ports import free_port
from tests.support.require import require

from cloudtolocalllm.edge.nginx.render import CONFIGURATION
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import prepare, write
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

MODULES = Path("/usr/lib/nginx/modules")
NEEDED = ("ngx_http_js_module", "ngx_http_brotli_static_module", "ngx_stream_module", "ngx_stream_js_module")
PACKAGES = (
    "nginx-light libnginx-mod-http-js libnginx-mod-http-brotli-static libnginx-mod-stream libnginx-mod-stream-js"
)
START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0


def nginx_path() -> str | None:
    """Return the program; /usr/sbin is not in everybody's PATH."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def require_nginx() -> str:
    """Skip the test where nginx or one of its modules is missing; return the program."""
    path = nginx_path()
    modules = all((MODULES / f"{name}.so").exists() for name in NEEDED)
    require(path and modules, "nginx with njs, brotli and stream", f"apt-get install {PACKAGES}")
    assert path is not None
    return path


class NginxServer:
    """One nginx."""

    def __init__(self, edge: EdgeSettings, nginx: NginxSettings | None = None) -> None:
        """Prepare one.

        Args:
            edge: What to serve; a port of 0 is replaced by a free one.
            nginx: How; the folders that are not given are its own.
        """
        self._program = require_nginx()
        self.folder = Path(tempfile.mkdtemp(prefix="c2l-nginx-"))
        given = nginx or NginxSettings()
        self.edge = replace(edge, listen_port=edge.listen_port or free_port())
        self.nginx = replace(
            given,
            state_dir=self.folder / "state",
            acme_root=self.folder / "acme",
            modules_dir=MODULES,
            user="root" if os.geteuid() == 0 else "",  # the test's folders are for their owner alone
            connections=2048,
        )
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where it serves: TLS if it speaks that."""
        return self.edge.listen_port if self.nginx.certificate_dir is None else self.nginx.tls_port

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert self._process is None
        prepare(self.edge, self.nginx, SystemClock())
        write(self.folder, self.edge, self.nginx)
        command = [self._program, "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / CONFIGURATION)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, "-g", "daemon off;"], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"expected nginx to listen; it said: {self.said()[-2000:]}")
            time.sleep(0.01)

    def reload(self) -> None:
        """Have it read its configuration and certificates anew."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    @property
    def pid(self) -> int:
        """The master's process id."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """Everything it logged."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """End it, if it runs, and its folder."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self.folder)

    def _accepts(self) -> bool:
        host = self.edge.listen_host
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.settimeout(1)
            if ":" not in host:  # from another address than the clients of a test, whose connections are counted
                probe.bind(("127.0.0.250", 0))
            return probe.connect_ex((host, self.port)) == 0


@contextlib.contextmanager
def running_nginx(edge: EdgeSettings, nginx: NginxSettings | None = None) -> Iterator[NginxServer]:
    """Start a server and end it afterwards; the test is skipped where there is none (see `require`)."""
    server = NginxServer(edge, nginx)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        server.remove()
