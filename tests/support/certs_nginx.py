"""A real nginx that serves the webroot, and over TLS what is deployed: for the certificates' tests."""

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from tests.support.nginx_server import nginx_path
from tests.support.pebble import running
from tests.support.ports import free_port
from tests.support.require import require

DOWNLOAD = 24_000_000
"""Bytes of the file `/download`: more than the buffers on the way take, so that a slow reader holds it up."""


@dataclass
class CertsNginx:
    """A running nginx."""

    folder: Path
    http_port: int
    tls_port: int
    certificates: Path
    """The folder with fullchain.pem and privkey.pem."""

    @property
    def pid_file(self) -> Path:
        return self.folder / "nginx.pid"

    @property
    def webroot(self) -> Path:
        return self.folder / "webroot"

    def configure(self, *, tls: bool) -> None:
        """Write its configuration."""
        server = f"""
          server {{ listen 127.0.0.1:{self.tls_port} ssl; server_name _; keepalive_timeout 300s;
            ssl_certificate {self.certificates}/fullchain.pem;
            ssl_certificate_key {self.certificates}/privkey.pem; ssl_session_cache off; ssl_session_tickets off;
            location = /serial {{ return 200 "here"; }}
            location = /download {{ root {self.folder}/files; }} }}"""
        (self.folder / "nginx.conf").write_text(
            f"""
        daemon off; pid {self.pid_file}; error_log {self.folder}/error.log info; worker_processes 1; user root;
        events {{ worker_connections 256; }}
        http {{ access_log off; client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p;
          fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
          server {{ listen 127.0.0.1:{self.http_port}; server_name _;
            location /.well-known/acme-challenge/ {{ root {self.webroot}; }} location / {{ return 404; }} }}
          {server if tls else ""} }}
        """
        )

    def reload(self) -> None:
        """Have it read its configuration."""
        os.kill(int(self.pid_file.read_text()), signal.SIGHUP)

    def serial(self, host: str, *, roots: Path | None = None) -> int:
        """Return the serial number of the certificate that a new connection sees.

        Args:
            host: The name to ask for.
            roots: When given, the handshake must be valid for the name under these.
        """
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), timeout=5) as plain,
            tls_context(roots).wrap_socket(plain, server_hostname=host) as connection,
        ):
            data = connection.getpeercert(binary_form=True)
        assert data is not None
        return x509.load_der_x509_certificate(data).serial_number

    def wait_for_tls(self) -> None:
        """Wait until the TLS port is open."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.tls_port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"expected nginx to listen; it said: {(self.folder / 'error.log').read_text()[-2000:]}")


def tls_context(roots: Path | None) -> ssl.SSLContext:
    """Return a client's context, which checks nothing when `roots` is None."""
    context = ssl.create_default_context(cafile=str(roots) if roots else None)
    if roots is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def running_certs_nginx(folder: Path, certificates: Path, *, tls: bool) -> Iterator[CertsNginx]:
    """Start nginx and end it afterwards; the test is skipped where there is none."""
    nginx = nginx_path()
    require(nginx, "nginx", "apt-get install nginx-light")
    assert nginx is not None
    server = CertsNginx(folder, free_port(), free_port(), certificates)
    server.webroot.mkdir(exist_ok=True)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / "download").write_bytes(bytes(range(250)) * (DOWNLOAD // 250))
    server.configure(tls=tls)
    ports = (server.http_port, server.tls_port) if tls else (server.http_port,)
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with running(command, folder / "nginx.log", listens=ports):
        yield server
