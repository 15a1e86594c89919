"""What nginx reads only when it is told to: the certificate, and the addresses behind names."""

import asyncio
import hashlib
import socket
from dataclasses import dataclass, field
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, PRIVATE_KEY

STAMP = "stamp"
"""File beside a certificate that changes last, when a pair is whole."""
RESOLVE_TIMEOUT = 3.0
"""Seconds for all names."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What was seen at one time."""

    certificate: dict[str, str] = field(default_factory=dict)
    """Digests by file name."""
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By host name, in order; none for a name that is not known."""

    def after(self, earlier: "Outside") -> "Outside":
        """Return what counts now: what is gone for a moment changes nothing."""
        return Outside(
            {**earlier.certificate, **{name: value for name, value in self.certificate.items() if value}},
            {**self.addresses, **{name: value for name, value in earlier.addresses.items() if value},
             **{name: value for name, value in self.addresses.items() if value}},
        )  # fmt: skip


async def look(certificate_dir: Path | None, upstreams: tuple[Endpoint, ...]) -> Outside:
    """Look once; takes at most RESOLVE_TIMEOUT.

    Args:
        certificate_dir: Folder of the pair; None for no TLS.
        upstreams: Those that have a host are looked up.
    """
    files = () if certificate_dir is None else (STAMP, CERTIFICATE, PRIVATE_KEY)
    certificate = {name: _digest(certificate_dir / name) for name in files if certificate_dir is not None}
    names = sorted({endpoint.host for endpoint in upstreams if endpoint.host})
    found = await asyncio.gather(*(_addresses(name) for name in names))
    return Outside(certificate, dict(zip(names, found, strict=True)))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


async def _addresses(name: str) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return ()
    return tuple(sorted({str(address[4][0]) for address in found}))
