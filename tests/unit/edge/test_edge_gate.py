"""Counting connections, the exemption of this machine, and who is told."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.edge_memory import MemoryEdge, memory_edge
from tests.support.memory_transport import turns

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.app import Edge
from cloudtolocalllm.edge.clients import Client, Clients, parse_networks
from cloudtolocalllm.edge.gate import ConnectionGate
from cloudtolocalllm.edge.limits import Rate
from cloudtolocalllm.edge.routes import Route
from cloudtolocalllm.edge.settings import EdgeSettings

PEERS = ("192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8::2", "10.0.0.1", "127.0.0.1")


class Seen:
    """Writes down what a watch is told."""

    def __init__(self) -> None:
        self.limited: list[tuple[str, str, Route | None]] = []
        self.refused: list[tuple[str, str, Route]] = []

    def on_limited(self, client: Client, policy: str, where: Route | None, request_id: bytes) -> None:
        self.limited.append((client.address, policy, where))

    def on_refused(self, client: Client, reason: str, where: Route, request_id: bytes) -> None:
        self.refused.append((client.address, reason, where))


def gate(limit: int = 2, watch: Seen | None = None, *, exempts: bool = False) -> ConnectionGate:
    clients = Clients(parse_networks("10.0.0.0/8"))
    return ConnectionGate(limit, clients, watch or Seen(), lambda: 0.0, exempts_loopback=exempts)


@given(st.lists(st.tuples(st.sampled_from(PEERS), st.booleans()), max_size=60), st.booleans())
@settings(deadline=None)
def test_it_counts_to_nothing_in_the_end(steps: list[tuple[str, bool]], exempts: bool) -> None:
    tested = gate(exempts=exempts)
    held: list[str] = []
    for peer, opens in steps:
        if opens:
            held.append(peer)
            same = sum(other[:8] == peer[:8] if ":" in peer else other == peer for other in held)
            free = peer == "10.0.0.1" or (exempts and peer == "127.0.0.1")
            assert tested.opened(peer) is (free or same <= 2)
        elif peer in held:
            held.remove(peer)
            tested.closed(peer)
    for peer in held:
        tested.closed(peer)
    assert tested.clients == 0


def test_a_refusal_says_why_until_there_are_too_many() -> None:
    tested = gate()
    for _ in range(4):
        tested.opened("192.0.2.7")
    refusal = tested.refusal("192.0.2.7")
    assert refusal is not None
    assert refusal[0] == 429
    tested.opened("192.0.2.7")
    assert tested.refusal("192.0.2.7") is None


def test_the_watch_hears_of_connections_once() -> None:
    seen = Seen()
    tested = gate(1, seen)
    for _ in range(5):
        tested.opened("192.0.2.7")
        tested.opened("192.0.2.7")
        tested.closed("192.0.2.7")
    assert seen.limited == [("192.0.2.7", "connections", None)]


# --- in the edge; connections in memory come from no address or the one a test gives them ---


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEdge]:
    with memory_edge(monkeypatch, limit_static=Rate(1, "h", 1), listen_host="0.0.0.0") as made:
        yield made


async def test_one_line_in_the_log_as_any_other(edge: MemoryEdge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge.access")
    await edge.ask("GET /healthz HTTP/1.1")
    await edge.ask("GET /healthz HTTP/1.1")
    assert [getattr(record, "status", 0) for record in caplog.records] == [200, 429]


@pytest.mark.parametrize(
    ("settings", "exempt"),
    [
        ({}, True),
        ({"listen_host": "::1"}, True),
        ({"listen_host": "localhost"}, True),
        ({"limit_loopback": True}, False),
        ({"listen_host": "0.0.0.0"}, False),
        ({"domain": "llm.example"}, False),
    ],
)
async def test_one_owner_on_this_machine_is_never_limited(settings: dict[str, object], *, exempt: bool) -> None:
    made = EdgeSettings(api=(Endpoint(path="/a"),), **settings)  # type: ignore[arg-type] # the cases name real members
    edge = Edge(made, None)
    assert edge._exempts_loopback is exempt
    await edge.close()


async def test_the_exemption_is_for_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_edge(monkeypatch, limit_static=Rate(1, "h", 1)) as edge:
        for address, expected in (("127.0.0.1", b"200"), ("192.0.2.1", b"429")):
            for _ in range(2):
                client = edge.connect(address)
                client.peer_sends(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await turns(3)
            assert bytes(client.written[9:12]) == expected


async def test_a_proxy_that_nobody_named_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    cases: tuple[tuple[dict[str, object], int], ...] = (
        ({"domain": "llm.example"}, 1),
        ({"domain": "llm.example", "trusted_proxies": parse_networks("127.0.0.1/32")}, 0),
        ({"domain": "llm.example", "listen_host": "0.0.0.0"}, 0),
        ({}, 0),
    )
    for changed, warned in cases:
        caplog.clear()
        made = EdgeSettings(api=(Endpoint(path="/a"),), **changed)  # type: ignore[arg-type] # as above
        await Edge(made, None).close()
        assert len(caplog.records) == warned


async def test_who_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    with memory_edge(monkeypatch, limit_data=Rate(1, "h", 1), limit_loopback=True) as memory:
        memory.edge._watch = seen
        for _ in range(4):
            await memory.ask("GET /v1/x HTTP/1.1")
        await memory.ask("GET /api/x HTTP/1.1", "Origin: https://evil.example")
        client = memory.connect()
        client.peer_sends(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        await turns(5)
        await asyncio.sleep(0)
    assert [(policy, where) for _, policy, where in seen.limited] == [("data", Route.DATA)]
    assert [(reason, where) for _, reason, where in seen.refused] == [("origin", Route.API), ("host", Route.STATIC)]
