"""Where a request comes from, as the edge says, and how it is counted without keeping it. Pure."""

import ipaddress

from cloudtolocalllm.api.browser import Fields
from cloudtolocalllm.auth import pseudonyms

IPV6_PREFIX = 64
"""Bits of an IPv6 address that count as one client: a host chooses the rest itself (RFC 7721)."""


def address_of(fields: Fields) -> str:
    """Return the address of a request's client; "" when the edge, which alone sets this field, does not say."""
    text = fields.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip().decode("latin-1")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def counted(key: bytes, address: str) -> str:
    """Return under which name a client is counted: no address can be told from it without the key.

    Args:
        key: This installation's pseudonym key.
        address: The client's, "" for an unknown one; all unknown ones are counted together.
    """
    if ":" in address:
        number = int(ipaddress.IPv6Address(address.partition("%")[0]))
        address = str(ipaddress.IPv6Network((number, IPV6_PREFIX), strict=False))
    return pseudonyms.hidden(key, "address", address)
