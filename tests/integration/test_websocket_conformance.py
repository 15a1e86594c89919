"""RFC 6455 at our two WebSocket endpoints, case by case, after the chapters of the Autobahn test suite.

That suite expects an echo. These endpoints speak protocols of their own, so each case says what happens here instead:
  /ws/bridge   JSON texts, each in one frame of at most 16 KiB; anything else is a breach of policy (1008)
  /ws/tunnel   frames of the tunnel in binary messages of one frame of at most 1 MiB; texts and fragments are 1003
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.support.api_parts import RunningApi, engine, running_api
from tests.support.proxy_rig import ProxyRig, Reply, assertion, proxy_rig
from tests.support.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawWebSocket,
    close,
    frame,
)

from cloudtolocalllm.auth.assertion import BRIDGE
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineState, Hello, Presence
from cloudtolocalllm.link.wire import MAX_MESSAGE
from cloudtolocalllm.tunnel import SUBPROTOCOL, ResponseHead
from cloudtolocalllm.tunnel import frames as tunnel
from cloudtolocalllm.tunnel.heads import encode_response

# One API for all cases: a fault must end its own connection and nothing else.
pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO = control.encode(Hello("0.1.0", "Desktop", (engine(EngineState.UP),))).encode()
PRESENCE = control.encode(Presence((engine(EngineState.DOWN),))).encode()

Open = Callable[..., Awaitable[RawWebSocket]]


@dataclass(frozen=True)
class Side:
    """An endpoint under test."""

    name: str
    dial: Open
    """Asks for an upgrade, with fields of the request changed as asked."""
    kind: int
    """The opcode of its messages."""
    message: bytes
    """One that it takes at any time."""

    async def open(self) -> RawWebSocket:
        """Return a connection past its first messages."""
        socket = await self.dial()
        assert socket.upgrade.status == 101
        socket.send(frame(self.kind, hello_of(self.name)))
        greeting = await socket.receive()
        assert greeting is not None
        assert greeting.opcode == self.kind
        return socket

    def pick(self, bridge: int, tunnel: int) -> int:
        """Return what is expected of this endpoint."""
        return bridge if self.name == "bridge" else tunnel


def hello_of(name: str) -> bytes:
    if name == "bridge":
        return HELLO
    return tunnel.encode_hello(tunnel.Hello(1, os.urandom(16), 1, 0, 256 * 1024, 64))


async def bridge_fields(api: RunningApi) -> dict[str, str]:
    """Authenticate a bridge's control connection: the one place here that knows how."""
    return (await api.pair(api.person().id)).headers("/ws/bridge", api.nonce())


def tunnel_fields() -> dict[str, str]:
    """Authenticate a tunnel, as the edge does for a bridge."""
    return {"c2l-assertion": assertion(kind=BRIDGE, bridges=(), subject="home")}


def named(changed: dict[str, str | None]) -> dict[str, str | None]:
    return {name.replace("_", "-"): value for name, value in changed.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def bridge(api: RunningApi) -> AsyncIterator[Side]:
    sockets: list[RawWebSocket] = []

    async def dial(**changed: str | None) -> RawWebSocket:
        ends = await asyncio.open_unix_connection(api.socket)
        fields = {**await bridge_fields(api), **named(changed)}
        sockets.append(await RawWebSocket.over(*ends, "/ws/bridge", control.SUBPROTOCOL, fields))
        return sockets[-1]

    yield Side("bridge", dial, TEXT, PRESENCE)
    for socket in sockets:
        socket.writer.transport.abort()
    await asyncio.sleep(0.01)


@pytest_asyncio.fixture(loop_scope="module")
async def rig() -> AsyncIterator[ProxyRig]:
    async with proxy_rig() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def tunnelled(rig: ProxyRig) -> AsyncIterator[Side]:
    sockets: list[RawWebSocket] = []

    async def dial(**changed: str | None) -> RawWebSocket:
        ends = await asyncio.open_connection(rig.endpoint.host, rig.endpoint.port)
        fields = {**tunnel_fields(), **named(changed)}
        sockets.append(await RawWebSocket.over(*ends, "/ws/tunnel", SUBPROTOCOL, fields))
        return sockets[-1]

    yield Side("tunnel", dial, BINARY, tunnel.encode_ack(0))
    for socket in sockets:
        socket.writer.transport.abort()
    await asyncio.sleep(0.01)


@pytest.fixture(params=["bridge", "tunnelled"])
def side(request: pytest.FixtureRequest) -> Side:
    chosen: Side = request.getfixturevalue(request.param)
    return chosen


async def failed(socket: RawWebSocket) -> int | None:
    """Return the code with which the server failed the connection; it says so once and ends it."""
    answers = await socket.answers()
    assert [answer.opcode for answer in answers] == [CLOSE]
    return answers[0].code


# --- the opening handshake (§4.2) -----------------------------------------------------------------------------


async def test_the_handshake(side: Side) -> None:
    socket = await side.dial(sec_websocket_extensions="permessage-deflate; client_max_window_bits")
    assert socket.upgrade.status == 101
    assert (socket.upgrade.one("upgrade") or "").lower() == "websocket"
    assert (socket.upgrade.one("connection") or "").lower() == "upgrade"
    assert socket.upgrade.one("sec-websocket-extensions") is None  # compression across a trust boundary leaks


REFUSED = [
    {"sec_websocket_version": "8"},
    {"sec_websocket_version": None},
    {"sec_websocket_key": None},
    {"sec_websocket_protocol": None},
    {"sec_websocket_protocol": "chat"},
]


@pytest.mark.parametrize("changed", REFUSED)
async def test_no_handshake(side: Side, changed: dict[str, str | None]) -> None:
    socket = await side.dial(**changed)
    assert 400 <= socket.upgrade.status < 500
    if changed.get("sec_websocket_version"):
        assert socket.upgrade.status == side.pick(400, 426)


@pytest.mark.parametrize("changed", [{"upgrade": "h2c"}, {"connection": "keep-alive"}])
async def test_no_upgrade_at_all(side: Side, changed: dict[str, str | None]) -> None:
    socket = await side.dial(**changed)
    assert 400 <= socket.upgrade.status < 500


# --- 1, 9: framing of messages --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [125, 126, 127, 1000, 16 * 1024])
async def test_texts_of_every_form_of_length(bridge: Side, size: int) -> None:
    socket = await bridge.open()
    socket.send(frame(TEXT, PRESENCE.ljust(size)))
    await socket.alive()


@pytest.mark.parametrize("size", [16 * 1024 + 1, 65535, 65536, 2**31, 2**63 - 1])
async def test_a_text_too_long_is_refused_by_its_head(bridge: Side, size: int) -> None:
    socket = await bridge.open()
    socket.send(frame(TEXT, b"", length=size))
    assert await failed(socket) == 1009


async def answered(rig: ProxyRig, socket: RawWebSocket, size: int, *, octets: bool = False) -> Reply:
    """Let the tunnel carry an answer whose content comes in one message of `size` bytes."""
    client = await rig.client()
    client.send("GET", "/v1/models")
    message = await socket.receive()
    assert message is not None
    kind, _, stream, _ = tunnel.HEADER.unpack_from(message.payload)
    assert kind == tunnel.OPEN
    content = bytes(at % 251 for at in range(size - tunnel.HEADER_BYTES))
    head = encode_response(ResponseHead(200, ()), 4096)
    sent = [
        frame(BINARY, tunnel.frame(tunnel.HEAD, stream, head), mask=b"\0\0\0\0"),
        frame(BINARY, tunnel.frame(tunnel.DATA, stream, content), mask=os.urandom(4)),
        frame(BINARY, tunnel.frame(tunnel.END, stream, b"")),
    ]
    if octets:
        await socket.dribble(b"".join(sent))
    else:
        socket.send(*sent)
    reply = await asyncio.wait_for(client.reply("GET"), 10)
    assert (reply.status, reply.cut, reply.body) == (200, False, content)
    return reply


@pytest.mark.parametrize("size", [11, 125, 126, 127, 128, 65535, 65536, 65537])
async def test_binary_messages_of_every_form_of_length(rig: ProxyRig, tunnelled: Side, size: int) -> None:
    socket = await tunnelled.open()
    await answered(rig, socket, size)
    await socket.alive()


async def test_octet_by_octet(rig: ProxyRig, tunnelled: Side) -> None:
    socket = await tunnelled.open()
    await answered(rig, socket, 300, octets=True)


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 2**31, 2**63 - 1])
async def test_a_binary_message_too_long_is_refused_by_its_head(tunnelled: Side, size: int) -> None:
    socket = await tunnelled.open()
    socket.send(frame(BINARY, b"", length=size))
    assert await failed(socket) == 1009


async def test_an_empty_message(side: Side) -> None:
    """No JSON is empty; a message of no frames breaks no rule of framing, but the tunnel's own."""
    socket = await side.open()
    socket.send(frame(side.kind, b""))
    answers = await socket.answers()
    assert [answer.opcode for answer in answers] == [CLOSE]
    assert answers[0].code == side.pick(1008, 1002)


async def test_a_length_beyond_63_bits(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(side.kind, b"", length=2**63))
    assert await failed(socket) in (1002, 1009)


@pytest.mark.parametrize(("form", "size"), [(16, 125), (64, 125), (64, 126), (64, 65535)])
async def test_a_length_in_a_longer_form(side: Side, form: int, size: int) -> None:
    """§5.2 binds the sender; a receiver may bear with it, as the one library does and the other does not."""
    socket = await side.open()
    socket.send(frame(side.kind, side.message.ljust(size), form=form))
    if side.name == "bridge" and size <= 16 * 1024:
        await socket.alive()
    else:
        assert await failed(socket) == side.pick(1009, 1002)


async def test_many_frames_in_one_packet(side: Side) -> None:
    socket = await side.open()
    socket.send(*([frame(side.kind, side.message), frame(PING, b"1"), frame(PONG, b"unasked")] * 5))
    assert [await socket.receive() for _ in range(5)] == [Frame(PONG, b"1")] * 5
    await socket.alive()


async def test_a_frame_octet_by_octet(side: Side) -> None:
    socket = await side.open()
    await socket.dribble(frame(side.kind, side.message) + frame(PING, b"octets"))
    assert await socket.receive() == Frame(PONG, b"octets")


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE])
async def test_a_frame_without_a_mask(side: Side, opcode: int) -> None:
    socket = await side.open()
    socket.send(frame(opcode, b"", mask=None))
    assert await failed(socket) == 1002


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x01\x02\x03"])
async def test_any_mask_will_do(side: Side, mask: bytes) -> None:
    socket = await side.open()
    socket.send(frame(side.kind, side.message, mask=mask), frame(PING, b"masked", mask=mask))
    assert await socket.receive() == Frame(PONG, b"masked")


async def test_the_wrong_kind_of_message(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(TEXT if side.kind == BINARY else BINARY, side.message))
    assert await failed(socket) == side.pick(1008, 1003)


# --- 2: pings and pongs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
async def test_a_ping_is_answered_with_its_payload(side: Side, payload: bytes) -> None:
    socket = await side.open()
    socket.send(frame(PING, payload))
    assert await socket.receive() == Frame(PONG, payload)


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_a_control_frame_too_long(side: Side, opcode: int) -> None:
    socket = await side.open()
    socket.send(frame(opcode, b"x" * 126))
    assert await failed(socket) == 1002


@pytest.mark.parametrize("payload", [b"", b"unsolicited", b"x" * 125])
async def test_a_pong_that_nobody_asked_for(side: Side, payload: bytes) -> None:
    socket = await side.open()
    socket.send(frame(PONG, payload), frame(PING, b"then"))
    assert await socket.receive() == Frame(PONG, b"then")


async def test_ten_pings_are_answered_in_order(side: Side) -> None:
    socket = await side.open()
    socket.send(*(frame(PING, b"payload %d" % number) for number in range(10)))
    assert [await socket.receive() for _ in range(10)] == [
        Frame(PONG, b"payload %d" % number) for number in range(10)
    ]


# --- 3, 4: reserved bits and opcodes --------------------------------------------------------------------------


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", ["message", PING, PONG, CLOSE])
async def test_a_reserved_bit(side: Side, opcode: int | str, rsv: int) -> None:
    socket = await side.open()
    kind, payload = (side.kind, side.message) if isinstance(opcode, str) else (opcode, b"")
    socket.send(frame(kind, payload, rsv=rsv), frame(PING, b"after"))
    assert await failed(socket) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved payload"])
async def test_a_reserved_opcode(side: Side, opcode: int, payload: bytes) -> None:
    socket = await side.open()
    socket.send(frame(opcode, payload), frame(PING, b"after"))
    assert await failed(socket) == 1002


# --- 5: fragmentation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
async def test_a_fragmented_control_frame(side: Side, opcode: int) -> None:
    socket = await side.open()
    socket.send(frame(opcode, b"", fin=False), frame(CONTINUATION, b""))
    assert await failed(socket) == 1002


@pytest.mark.parametrize("payload", [b"", b"fragment"])
@pytest.mark.parametrize("pinged", [False, True])
async def test_messages_come_in_one_frame(side: Side, payload: bytes, *, pinged: bool) -> None:
    """Neither protocol has messages that would need it; nothing is gathered, so nothing can be made to grow."""
    socket = await side.open()
    between = [frame(PING, b"between")] if pinged else []
    socket.send(frame(side.kind, payload, fin=False), *between, frame(CONTINUATION, payload))
    answers = [answer for answer in await socket.answers() if answer != Frame(PONG, b"between")]
    assert [(answer.opcode, answer.code) for answer in answers] == [(CLOSE, side.pick(1008, 1003))]


async def test_a_ping_before_fragments_is_answered(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(PING, b"before"), frame(side.kind, b"", fin=False))
    assert await socket.receive() == Frame(PONG, b"before")
    assert await failed(socket) == side.pick(1008, 1003)


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"non-continuation payload"])
async def test_a_continuation_of_nothing(side: Side, payload: bytes, *, fin: bool) -> None:
    socket = await side.open()
    socket.send(frame(CONTINUATION, payload, fin=fin), frame(side.kind, side.message))
    assert await failed(socket) == 1002


# --- 6: UTF-8 -------------------------------------------------------------------------------------------------

VALID_UTF_8 = [
    "κόσμε",
    "\u0080\u07ff\u0800\uffff",
    "\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd",
    "\ufdd0\ufffe\uffff\U0001ffff",  # noncharacters are characters here
    "\x00\x7f",
]
INVALID_UTF_8 = [
    b"\x80",
    b"\xbf",
    b"\x80\xbf" * 3,
    b"\xc0 \xc1 ",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xe1\x80",
    b"\xf1\x80\x80",
    b"\xc3",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
]


@pytest.mark.parametrize("text", VALID_UTF_8)
async def test_valid_utf_8_is_read(bridge: Side, text: str) -> None:
    """It is no JSON, so it breaks our policy: another code than that of bad encoding."""
    socket = await bridge.open()
    socket.send(frame(TEXT, text.encode("utf-8")))
    assert await failed(socket) == 1008


async def test_utf_8_in_a_message(bridge: Side) -> None:
    socket = await bridge.dial()
    hello = HELLO.replace(b"Desktop", "Büro κόσμε \U0001f5a5".encode())
    socket.send(frame(TEXT, hello))
    greeting = await socket.receive()
    assert greeting is not None
    assert b"welcome" in greeting.payload


@pytest.mark.parametrize("text", INVALID_UTF_8, ids=bytes.hex)
async def test_invalid_utf_8(bridge: Side, text: bytes) -> None:
    socket = await bridge.open()
    socket.send(frame(TEXT, text))
    assert await failed(socket) == 1007


@pytest.mark.parametrize("text", [b"\xff", "κόσμε".encode()])
async def test_the_tunnel_reads_no_text_at_all(tunnelled: Side, text: bytes) -> None:
    socket = await tunnelled.open()
    socket.send(frame(TEXT, text))
    assert await failed(socket) == 1003


# --- 7: closing -----------------------------------------------------------------------------------------------

VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999]


async def closed(socket: RawWebSocket) -> Frame:
    """Return the server's only CLOSE; it answers ours and ends the connection."""
    answers = await socket.answers(reply=False)
    assert [answer.opcode for answer in answers] == [CLOSE]
    return answers[0]


@pytest.mark.parametrize("code", VALID_CODES)
@pytest.mark.parametrize("reason", [b"", b"going away"])
async def test_a_close_is_answered(side: Side, code: int, reason: bytes) -> None:
    socket = await side.open()
    socket.send(close(code, reason))
    assert (await closed(socket)).code == side.pick(code, 1000)


async def test_a_close_without_a_code(side: Side) -> None:
    socket = await side.open()
    socket.send(close(None))
    assert (await closed(socket)).code in (None, 1000)


@pytest.mark.parametrize("code", INVALID_CODES)
async def test_a_code_that_nobody_may_send(side: Side, code: int) -> None:
    socket = await side.open()
    socket.send(close(code))
    assert (await closed(socket)).code == 1002


@pytest.mark.parametrize("code", [5000, 65535])
async def test_a_code_beyond_all_ranges(side: Side, code: int) -> None:
    """§7.4.2 says nothing of these; the connection ends either way."""
    socket = await side.open()
    socket.send(close(code))
    assert (await closed(socket)).code == side.pick(1002, 1000)


async def test_a_close_of_one_byte(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(CLOSE, b"\x03"))
    assert (await closed(socket)).code == 1002


@pytest.mark.parametrize(("size", "expected"), [(123, 1000), (124, 1002)])
async def test_how_long_a_reason_may_be(side: Side, size: int, expected: int) -> None:
    socket = await side.open()
    socket.send(close(1000, b"*" * size))
    assert (await closed(socket)).code == expected


@pytest.mark.parametrize("reason", INVALID_UTF_8[-6:], ids=bytes.hex)
async def test_a_reason_that_is_no_utf_8(side: Side, reason: bytes) -> None:
    socket = await side.open()
    socket.send(close(1000, reason))
    assert (await closed(socket)).code == 1007


async def test_after_a_close_nothing_counts(side: Side) -> None:
    socket = await side.open()
    socket.send(close(1000), frame(PING, b"late"), frame(side.kind, b"late"), close(1000), frame(3, b"late"))
    assert (await closed(socket)).code == 1000


async def test_after_a_fault_nothing_counts(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(3), frame(PING, b"late"), frame(4), frame(side.kind, b"late"))
    assert await failed(socket) == 1002


async def test_a_client_that_does_not_answer_a_close_is_cut(side: Side) -> None:
    socket = await side.open()
    socket.send(frame(CONTINUATION, b""))
    async with asyncio.timeout(6):
        assert [answer.opcode for answer in await socket.answers(reply=False)] == [CLOSE]


@pytest.mark.parametrize("begun", [b"", frame(BINARY, b"half")[:5], frame(PING, b"half")[:1]])
async def test_an_end_without_a_close(side: Side, begun: bytes) -> None:
    socket = await side.open()
    if begun:
        socket.send(begun)
    socket.writer.write_eof()
    assert PONG not in [answer.opcode for answer in await socket.answers()]
