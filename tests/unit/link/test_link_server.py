"""Which session a WebSocket is given to, by its HELLO."""

from picows import WSCloseCode
from tests.support.link_parts import POST, MemoryWire, Recorder, turns

from cloudtolocalllm.link import Tunnel, TunnelServer
from cloudtolocalllm.link import server as server_module
from cloudtolocalllm.tunnel import GoAwayReason, GoAwayReceived, ResetReason, Role, Session


def hello(session: Session, now: float = 0.0) -> bytes:
    """A dial's first message."""
    session.attach(now)
    message = session.data_to_send()
    assert message is not None
    return message


def bridge(number: int = 1) -> Session:
    return Session(Role.BRIDGE, bytes([number]) * 16)


class Told:
    def __init__(self) -> None:
        self.attached: list[str] = []
        self.first: list[str] = []
        self.ended: list[str] = []
        self.server = TunnelServer(
            on_tunnel=lambda bridge_id, tunnel: self.first.append(bridge_id),
            on_tunnel_ended=lambda bridge_id, tunnel: self.ended.append(bridge_id),
            on_attached=lambda bridge_id, tunnel: self.attached.append(bridge_id),
        )

    def arrive(self, bridge_id: str, message: bytes) -> MemoryWire:
        wire, _ = MemoryWire.pair()
        self.server.arrived(bridge_id, wire, message)
        return wire


async def test_a_bridge_that_dials_again_finds_its_session() -> None:
    told, session = Told(), bridge()
    first = told.arrive("home", hello(session))
    second = told.arrive("home", hello(session))
    assert first.aborted
    assert not second.aborted
    assert len(told.server.tunnels("home")) == 1
    assert (told.first, told.attached) == (["home"], ["home", "home"])
    assert told.server.attached_bridges() == ["home"]


async def test_a_session_belongs_to_the_bridge_that_made_it() -> None:
    told, session = Told(), bridge()
    mine = told.arrive("home", hello(session))
    told.server.tunnels("home")[0].open(POST, Recorder())
    theirs = told.arrive("thief", hello(session))
    await turns()
    assert not mine.aborted
    assert theirs.closed is None
    assert len(told.server.tunnels()) == 2
    assert told.server.tunnels("thief")[0].open_streams == 0


async def test_a_connection_with_an_old_epoch_cannot_replace_a_newer_one() -> None:
    told, session = Told(), bridge()
    late = hello(session)
    current = told.arrive("home", hello(session))
    delayed = told.arrive("home", late)
    assert delayed.closed is WSCloseCode.POLICY_VIOLATION
    assert not current.aborted
    assert told.server.tunnels("home")[0].attached


async def test_a_first_message_that_is_not_hello_is_refused() -> None:
    told = Told()
    for message in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100):
        assert told.arrive("home", message).closed is WSCloseCode.PROTOCOL_ERROR
    assert told.server.tunnels() == []
    assert told.first == []


async def test_sessions_are_bounded_and_the_newest_is_first() -> None:
    told = Told()
    for number in range(server_module.MAX_SESSIONS):
        assert told.arrive("home", hello(bridge(number))).closed is None
    assert told.arrive("home", hello(bridge(200))).closed is WSCloseCode.TRY_AGAIN_LATER
    tunnels: list[Tunnel] = told.server.tunnels("home")
    assert len(tunnels) == server_module.MAX_SESSIONS
    told.arrive("home", hello(bridge(201)))
    assert told.server.tunnels("home")[0] is tunnels[0]


async def test_a_session_that_is_over_is_forgotten() -> None:
    told, session = Told(), bridge()
    wire = told.arrive("home", hello(session))
    told.server.tunnels("home")[0].wire_message(wire, b"\xff" * 30, True)
    assert told.server.tunnels() == []
    assert told.ended == ["home"]
    assert wire.closed is WSCloseCode.PROTOCOL_ERROR


async def test_a_bridge_that_is_cut_loses_its_sessions_and_its_streams() -> None:
    told, session, other = Told(), bridge(), bridge(2)
    wire = told.arrive("home", hello(session))
    kept = told.arrive("other", hello(other))
    handler = Recorder()
    told.server.tunnels("home")[0].open(POST, handler)
    assert told.server.cut("home", GoAwayReason.REVOKED, "the bridge was revoked") == 1
    await turns()
    assert wire.closed is WSCloseCode.POLICY_VIOLATION
    assert handler.reset == (ResetReason.CANCELLED, "the bridge was revoked")
    assert told.server.tunnels("home") == []
    assert told.ended == ["home"]
    session.receive_data(b"".join(wire.sent), 0.0)
    events = session.events_received()
    assert any(isinstance(e, GoAwayReceived) and e.reason is GoAwayReason.REVOKED for e in events)
    assert kept.closed is None
    assert told.server.attached_bridges() == ["other"]
    assert told.server.cut("home", GoAwayReason.REVOKED, "again") == 0


async def test_a_bridge_that_is_detached_may_resume() -> None:
    told, session = Told(), bridge()
    wire = told.arrive("home", hello(session))
    handler = Recorder()
    told.server.tunnels("home")[0].open(POST, handler)
    told.server.detach("home")
    await turns()
    assert wire.aborted
    assert handler.reset is None
    assert told.server.attached_bridges() == []
    assert told.server.tunnels("home")[0].open_streams == 1
    told.arrive("home", hello(session))
    assert told.server.attached_bridges() == ["home"]
    assert told.first == ["home"], "expected the same session"
    told.server.detach("nobody")
