"""Who a request comes from: the connection's own address, or what a trusted proxy in front of us says."""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from cloudtolocalllm.runtime.http1 import Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS = 16
"""Addresses in X-Forwarded-For that are looked at, from the right."""
_CACHED = 4096
IPV6_PREFIX = 64
"""Bits of an IPv6 address that count as one client: a host chooses the rest itself (RFC 7721)."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str
    """The client's; "" when it is not known (a Unix socket)."""
    bucket: str
    """Whose limits count: the address, or an IPv6 address's /64."""
    loopback: bool
    scheme: bytes | None = None
    """What the client speaks, as a trusted proxy says; None when none says so."""


class Clients:
    """Tells clients apart."""

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        """Believe X-Forwarded-For and X-Forwarded-Proto from these networks only."""
        self._trusted = trusted
        self._trusts = lru_cache(_CACHED)(self._is_trusted)

    def of(self, request: Request, peer: str) -> Client:
        """Return who sent a request over a connection from `peer`."""
        if not self._trusted or not self._trusts(peer):
            return direct(peer)
        found = direct(self._rightmost_untrusted(request, peer))
        return Client(found.address, found.bucket, found.loopback, _scheme(request))

    def trusts(self, peer: str) -> bool:
        """Return whether connections from `peer` are those of a proxy of ours."""
        return bool(self._trusted) and self._trusts(peer)

    def _rightmost_untrusted(self, request: Request, peer: str) -> str:
        # Each hop appends the address that it saw itself, so from the right the list is true up to the first address
        # that is no proxy of ours; whatever stands left of it that client may have made up.
        found = peer
        values = [value for name, value in request.headers if name == b"x-forwarded-for"]
        hops = b",".join(values).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:] if values else []
        for text in reversed(hops):
            address = parse_address(_without_port(text.strip(" \t")))
            if address is None:
                break  # what stands here was no address, so nothing left of it can be believed
            found = str(address)
            if not self._trusts(found):
                break
        return found

    def _is_trusted(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(
            address in network for network in self._trusted if network.version == address.version
        )


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read address ranges, separated by commas.

    Raises:
        ValueError: One is none, or has bits set beyond its prefix.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("expected address ranges as 10.0.0.0/8 or fd00::/8, separated by commas") from None


def parse_address(text: str) -> Address | None:
    """Return an address, an IPv4 address inside IPv6 (::ffff:192.0.2.7) as IPv4; None when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Return whether a listening address reaches this machine only."""
    address = parse_address(host.strip("[]"))
    return host.lower() == "localhost" if address is None else address.is_loopback


@lru_cache(_CACHED)
def direct(address: str) -> Client:
    """Return the client at an address."""
    parsed = parse_address(address)
    if parsed is None:
        return Client("", "", loopback=False)
    bucket = str(parsed)
    if isinstance(parsed, ipaddress.IPv6Address):
        bucket = str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
    return Client(str(parsed), bucket, parsed.is_loopback)


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _scheme(request: Request) -> bytes | None:
    """Return the scheme that the nearest proxy names: the last of a list is its own word."""
    values = [value for name, value in request.headers if name == b"x-forwarded-proto"]
    last = values[-1].rpartition(b",")[2].strip(b" \t").lower() if values else b""
    return last if last in (b"http", b"https") else None
