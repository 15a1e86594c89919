"""What people put in front of an engine today, in front of the same engine: nginx, and the tunnels chisel and frp."""

import contextlib
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

from bench.measure import tree

READY_TIMEOUT = 10.0

NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host localhost;
      proxy_buffering off;
    }}
  }}
}}
"""
FRPS = 'bindAddr = "127.0.0.1"\nbindPort = {control}\nproxyBindAddr = "127.0.0.1"\n'
FRPC = """\
serverAddr = "127.0.0.1"
serverPort = {control}
[[proxies]]
name = "engine"
type = "tcp"
localIP = "127.0.0.1"
localPort = {engine}
remotePort = {port}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One that runs."""

    url: str
    roots: tuple[int, ...]
    """The processes that were started; they may have children."""

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for root in self.roots for pid in tree(root)]


@contextlib.contextmanager
def peers(engine_port: int) -> Iterator[tuple[dict[str, Peer], list[str]]]:
    """Run each peer that is installed, in front of an engine.

    Yields:
        The peers by name, and a note for each that is missing.
    """
    found: dict[str, Peer] = {}
    missing: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c2l-peers-")))
        for name, start in (("nginx", _nginx), ("chisel", _chisel), ("frp", _frp)):
            commands = start(folder, engine_port, port := free_port())
            if commands is None:
                missing.append(f"{name} is not installed; not compared")
                continue
            roots = tuple(stack.enter_context(_process(command)) for command in commands)
            url = f"http://127.0.0.1:{port}"
            _await(url)
            found[name] = Peer(url, roots)
        yield found, missing


def _found(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _nginx(folder: Path, engine: int, port: int) -> list[list[str]] | None:
    program = _found("nginx")
    if program is None:
        return None
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, engine=engine, port=port))
    return [[program, "-c", str(config), "-p", str(folder)]]


def _chisel(_folder: Path, engine: int, port: int) -> list[list[str]] | None:
    program = _found("chisel")
    if program is None:
        return None
    control = free_port()
    server = [program, "server", "--host", "127.0.0.1", "--port", str(control), "--reverse"]
    client = [program, "client", f"http://127.0.0.1:{control}", f"R:127.0.0.1:{port}:127.0.0.1:{engine}"]
    return [server, client]


def _frp(folder: Path, engine: int, port: int) -> list[list[str]] | None:
    server, client = _found("frps"), _found("frpc")
    if server is None or client is None:
        return None
    control = free_port()
    (folder / "frps.toml").write_text(FRPS.format(control=control))
    (folder / "frpc.toml").write_text(FRPC.format(control=control, engine=engine, port=port))
    return [[server, "-c", str(folder / "frps.toml")], [client, "-c", str(folder / "frpc.toml")]]


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + "/api/version", timeout=1) as response:
            if response.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"expected an answer at {url} within {READY_TIMEOUT} s")
