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
CONNECT_TIMEOUT = 0.5
"""Seconds in which an address that is new must accept a connection, to be taken in at this look."""


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


async def look(certificate_dir: Path | None, upstreams: tuple[Endpoint, ...], known: Outside) -> Outside:
    """Look once; takes at most RESOLVE_TIMEOUT and CONNECT_TIMEOUT.

    A name leads to a replica from the moment that it starts. One that does not listen yet is left out: nginx would
    ask it, be refused, and leave it alone for a while in which all others may end.

    Args:
        certificate_dir: Folder of the pair; None for no TLS.
        upstreams: Those that have a host are looked up.
        known: What was seen before; its addresses were found to listen.
    """
    files = () if certificate_dir is None else (STAMP, CERTIFICATE, PRIVATE_KEY)
    certificate = {name: _digest(certificate_dir / name) for name in files if certificate_dir is not None}
    ports: dict[str, set[int]] = {}
    for endpoint in upstreams:
        if endpoint.host and endpoint.port is not None:
            ports.setdefault(endpoint.host, set()).add(endpoint.port)
    names = sorted(ports)
    found = await asyncio.gather(*(_serving(name, ports[name], known.addresses.get(name, ())) for name in names))
    return Outside(certificate, dict(zip(names, found, strict=True)))


async def _serving(name: str, ports: set[int], known: tuple[str, ...]) -> tuple[str, ...]:
    addresses = await _addresses(name)
    if addresses == (name,):
        return addresses  # no name, so there is no other to wait for
    listen = await asyncio.gather(*(_listens(address, ports) for address in addresses if address not in known))
    fresh = dict(zip((address for address in addresses if address not in known), listen, strict=True))
    return tuple(address for address in addresses if fresh.get(address, True))


async def _listens(address: str, ports: set[int]) -> bool:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            for port in ports:
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return True


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
