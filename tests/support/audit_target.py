"""What `make audit` examines: the whole platform behind nginx with TLS on loopback, or somebody's own host."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.nginx_server import NginxServer, running_nginx
from tests.support.ports import free_port
from tests.support.require import require
from tests.support.stack import ROOT, Stack

from cloudtolocalllm.certs.local_ca import LocalCa
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

DOMAIN = "llm.example"
APP = f"app.{DOMAIN}"
LOOPBACK = "127.0.0.1"
CONNECTIONS = EdgeSettings(api=()).limit_connections
"""Of one address, as by default."""
RESULTS = ROOT / ".cache" / "audit"
TOOLS = ROOT / ".cache" / "audit-tools"
HOST = os.environ.get("C2L_AUDIT_HOST", "")
"""Somebody's own host to examine instead: `make audit HOST=app.example.org`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tools are pointed."""

    hosts: tuple[str, ...]
    """Names it serves."""
    tls_port: int = 443
    plain_port: int = 80
    address: str | None = None
    """Its address; None when the names are to be looked up."""
    root: Path | None = None
    """File of the authority made for it; None when its certificate is to be one that everybody trusts."""
    server: NginxServer | None = None
    """The nginx that serves it, where it is ours."""

    @property
    def local(self) -> bool:
        """Whether it was started here."""
        return self.server is not None


def given_target() -> Target | None:
    """Return the host that the caller named, if any."""
    return Target((HOST,)) if HOST else None


@contextlib.contextmanager
def running_target(stack: Stack, *, connections: int = CONNECTIONS) -> Iterator[Target]:
    """Start nginx as a domain is served, before a running platform, with a certificate of the local authority.

    Args:
        stack: The platform; nginx asks its API and its users' proxies.
        connections: How many one address may open; 0 for no limit.
    """
    web = ROOT / "web" / "dist"
    require((web / "index.html").exists(), "the built page", "make install")
    folder = Path(tempfile.mkdtemp(prefix="c2l-audit-"))
    try:
        root = certificate(folder)
        edge = EdgeSettings(
            api=(Endpoint(path=str(stack.run_dir / "api.sock")),),
            listen_port=free_port(),
            domain=DOMAIN,
            allowed_hosts=(LOOPBACK,),  # slowhttptest names the address it connects to
            web_root=web,
            limit_connections=connections,
        )
        nginx = NginxSettings(certificate_dir=folder, tls_port=free_port())
        with running_nginx(edge, nginx) as server:
            yield Target((APP, DOMAIN), server.port, edge.listen_port, LOOPBACK, root, server)
    finally:
        shutil.rmtree(folder)


def certificate(folder: Path) -> Path:
    """Put a certificate of a new local authority into a folder; return the authority's."""
    authority = LocalCa(folder / "authority", (DOMAIN, APP), SystemClock())
    pair = asyncio.run(authority.bring(None, None))
    assert pair is not None
    (folder / CERTIFICATE).write_bytes(pair.fullchain)
    (folder / PRIVATE_KEY).write_bytes(pair.privkey)
    return authority.root_path
