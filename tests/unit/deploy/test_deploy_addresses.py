"""deploy/install: the platform's addresses are nobody else's, by the kernel's word and by the engine's."""

import ipaddress

import pytest
from tests.support.install_machine import NO_ROUTES, OURS, Machine


def route(interface: str, network: str) -> str:
    """Return a line of /proc/net/route, whose numbers are little-endian."""
    range_ = ipaddress.IPv4Network(network)
    words = (bytes(reversed(one.packed)).hex().upper() for one in (range_.network_address, range_.netmask))
    return "{} {} 00000000 0001 0 0 0 {} 0 0 0\n".format(interface, *words)


@pytest.mark.parametrize("network", ["172.20.0.0/16", "172.20.7.0/24", "172.16.0.0/12"])
def test_taken_addresses_unless_they_are_ours(machine: Machine, network: str) -> None:
    machine.write("proc/net/route", NO_ROUTES + route(f"br-{OURS}", network))
    machine.refuses(f"the addresses 172.20.0.0/16 to be unused; the route by br-{OURS} has some of them")
    machine.environ = {"OUR_NETWORKS": OURS}
    machine.installs()


def test_other_addresses_are_suggested_and_taken(machine: Machine) -> None:
    machine.write("proc/net/route", NO_ROUTES + route("br0", "172.20.0.0/16") + route("br1", "172.31.0.0/16"))
    machine.refuses("the addresses 172.20.0.0/16 to be unused; the route by br0 has some of them. "
                    "Choose others: --subnet 172.30")  # fmt: skip
    machine.installs("--subnet", "172.30")
    assert "C2L_SUBNET=172.30\n" in (machine.compose / ".env").read_text()


@pytest.mark.parametrize("network", ["172.19.0.0/16", "172.21.255.0/24", "10.0.0.0/8"])
def test_addresses_beside_ours_do_not_matter(machine: Machine, network: str) -> None:
    machine.write("proc/net/route", NO_ROUTES + route("br0", network))
    machine.installs()


@pytest.mark.parametrize("network", ["172.20.9.0/24", "172.16.0.0/12"])
def test_a_network_of_the_engine_that_has_no_route_is_seen(machine: Machine, network: str) -> None:
    machine.environ = {"ENGINE_NETWORK": "abcdefabcdef", "ENGINE_NETWORK_RANGE": network}
    machine.refuses("the addresses 172.20.0.0/16 to be unused; Docker's network other_default has some of them")


def test_addresses_and_name_stay_while_it_runs(machine: Machine) -> None:
    machine.installs()
    machine.environ = {"OUR_NETWORKS": OURS, "OURS": "abc"}
    machine.refuses("--subnet to stay 172.20 while the platform has its networks", "--subnet", "172.30")
    machine.refuses("--project to stay cloudtolocalllm here", "--project", "other")
    machine.environ = {}
    machine.installs("--subnet", "172.30")
