"""A server that decides about connections before they say anything."""

from dataclasses import dataclass, field

from tests.support.http1_recorders import RecordingServer
from tests.support.memory_transport import MemoryTransport, turns

from cloudtolocalllm.runtime.http1 import Headers

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass
class CountingGate:
    """Serves as many as it is told to."""

    free: int
    answer: tuple[int, Headers, bytes] | None = (429, ((b"x-why", b"too many"),), b"wait")
    open: int = 0
    peers: list[str] = field(default_factory=list)

    def opened(self, peer: str) -> bool:
        self.open += 1
        self.peers.append(peer)
        return self.open <= self.free

    def refusal(self, peer: str) -> tuple[int, Headers, bytes] | None:
        return self.answer

    def closed(self, peer: str) -> None:
        self.open -= 1


def gated(gate: CountingGate) -> RecordingServer:
    recording = RecordingServer()
    recording.server.gate = gate
    return recording


async def test_one_too_many_is_told_why_and_closed() -> None:
    gate = CountingGate(free=1)
    recording = gated(gate)
    good, bad = recording.connect(), recording.connect()
    await turns()
    assert bytes(bad.written).startswith(b"HTTP/1.1 429 ")
    assert b"x-why: too many\r\n" in bad.written
    assert b"connection: close\r\n" in bad.written
    assert bytes(bad.written).endswith(b"\r\n\r\nwait")
    bad.peer_sends(GET)  # it may have asked already; that is read and dropped
    good.peer_sends(GET)
    await turns()
    assert len(recording.calls) == 1
    assert b"429" not in good.written


async def test_or_cut_without_a_word() -> None:
    gate = CountingGate(free=0, answer=None)
    recording = gated(gate)
    client = recording.connect()
    await turns()
    assert (bytes(client.written), client.is_closing()) == (b"", True)
    assert gate.open == 0


async def test_every_end_is_counted_once() -> None:
    gate = CountingGate(free=2)
    recording = gated(gate)
    clients: list[MemoryTransport] = [recording.connect() for _ in range(4)]
    clients[0].peer_sends(GET)
    for client in clients:
        client.abort()
    await turns()
    assert gate.open == 0
    assert len(recording.server.connections_open) == 0


async def test_a_hijacked_connection_is_the_hijackers_to_count() -> None:
    gate = CountingGate(free=1)
    recording = gated(gate)
    client = recording.connect()
    client.peer_sends(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    recording.calls[0].responder.hijack()
    await turns()
    assert gate.open == 1
