"""Addresses: who counts as one client, and whose word about them counts."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtolocalllm.edge.clients import Clients, direct, is_loopback, parse_address, parse_networks
from cloudtolocalllm.runtime.http1 import Request
from cloudtolocalllm.runtime.http1.messages import NO_BODY

PROXY = "10.0.0.1"
CLIENTS = Clients(parse_networks("10.0.0.0/8, fd00::/8"))


def request(*forwarded: str) -> Request:
    headers = tuple((b"x-forwarded-for", text.encode("latin-1", "replace")) for text in forwarded)
    return Request("GET", "/", headers, NO_BODY, "1.1", True, None, False, b"")


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_buckets(address: str, bucket: str) -> None:
    assert direct(address).bucket == bucket


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_a_host_cannot_leave_its_bucket(address: ipaddress.IPv6Address, interface: int) -> None:
    if address.ipv4_mapped is None:
        other = ipaddress.IPv6Address((int(address) >> 64 << 64) | interface)
        if other.ipv4_mapped is None:
            assert direct(str(other)).bucket == direct(str(address)).bucket


forged = st.lists(
    st.one_of(st.ip_addresses().map(str), st.text("0123456789abcdef.:,[] %", max_size=30), st.just(PROXY)), max_size=6
)
public = st.ip_addresses(v=4).filter(lambda address: address not in ipaddress.ip_network("10.0.0.0/8"))


@given(forged, public, st.lists(st.just("10.1.2.3"), max_size=5))
@settings(deadline=None)
def test_whatever_a_client_writes_it_stays_itself(
    written: list[str], client: ipaddress.IPv4Address, hops: list[str]
) -> None:
    sent = request(", ".join([*written, str(client), *hops]))
    assert CLIENTS.of(sent, PROXY).address == str(client)
    assert CLIENTS.of(sent, str(client)) == direct(str(client))


@given(forged)
@settings(deadline=None)
def test_there_is_always_an_address(written: list[str]) -> None:
    assert parse_address(CLIENTS.of(request(*written), PROXY).address) is not None


def test_without_trusted_proxies_nobody_is_believed() -> None:
    sent = request("192.0.2.7")
    assert Clients(()).of(sent, PROXY).address == PROXY
    assert not Clients(()).trusts(PROXY)
    assert CLIENTS.trusts("fd00::1")
    assert not CLIENTS.trusts("")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example", "10.0.0.0-10.0.0.9", "*"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="expected address ranges"):
        parse_networks(text)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("llm.example", False),
    ],
)
def test_what_reaches_this_machine_only(host: str, *, local: bool) -> None:
    assert is_loopback(host) is local
