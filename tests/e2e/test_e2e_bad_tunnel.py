"""A bridge that breaks the tunnel's rules: closed with the documented code, and nobody else notices."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from tests.support.engines import EngineProcess
from tests.support.long_answer import ask
from tests.support.raw_http import works
from tests.support.rogue_bridge import WINDOW, Dialled, RogueBridge, hello
from tests.support.stack import Stack

from cloudtolocalllm.tunnel import GoAwayReason
from cloudtolocalllm.tunnel.frames import (
    ACK,
    CREDIT,
    DATA,
    END,
    GOAWAY,
    HEAD,
    HEADER,
    HELLO,
    OPEN,
    PING,
    PONG,
    RESET,
    decode_hello,
    frame,
)

pytestmark = pytest.mark.timeout(60)
MARK = b"c2l-garbage-marker"
OK = struct.pack(">HH", 200, 0)
"""The payload of HEAD: status 200, no field."""


@pytest.fixture(autouse=True)
def nothing_dies_or_leaks_into_the_log(paced_stack: Stack) -> Iterator[None]:
    before = {name: process.pid for name, process in paced_stack.processes().items()}
    yield
    after = {name: process.pid for name, process in paced_stack.processes().items()}
    assert {name: after.get(name) for name in before} == before
    log = (paced_stack.data_dir / "logs" / "up.log").read_bytes()
    assert MARK not in log
    assert MARK.hex().encode() not in log
    assert paced_stack.api_key.encode() not in log


@pytest.fixture
async def rogue(paced_stack: Stack) -> AsyncIterator[RogueBridge]:
    async with RogueBridge(paced_stack) as made:
        yield made
    assert made.credential.encode() not in (paced_stack.data_dir / "logs" / "up.log").read_bytes()
    await works(paced_stack)


def fields(*pairs: tuple[bytes, bytes], status: int = 200) -> bytes:
    text = b"".join(struct.pack(">HH", len(name), len(value)) + name + value for name, value in pairs)
    return struct.pack(">HH", status, len(pairs)) + text


NOT_HELLO = [
    ("garbage", MARK * 20, 1002),
    ("nothing", b"", 1002),
    ("half a header", b"\x01\0\0", 1002),
    ("DATA before HELLO", frame(DATA, 1, MARK), 1002),
    ("text", MARK.decode(), 1003),
    ("over 1 MiB", MARK + bytes(1024 * 1024), 1009),
    ("a window of nothing", hello(bytes(16), window=0), 1002),
    ("epoch 0", hello(bytes(16), epoch=0), 1002),
    ("an origin of the future", hello(bytes(16), epoch=3, origin=7), 1002),
    ("half a HELLO", hello(bytes(16))[:-5], 1002),
    ("a HELLO with a flag", b"\x01\x01" + hello(bytes(16))[2:], 1002),
    ("a HELLO of a stream", HEADER.pack(1, 0, 5, 54) + hello(bytes(16))[10:], 1002),
]


@pytest.mark.parametrize(("message", "code"), [m[1:] for m in NOT_HELLO], ids=[m[0] for m in NOT_HELLO])
async def test_what_is_no_hello_is_closed(rogue: RogueBridge, message: bytes | str, code: int) -> None:
    dialled = await rogue.dial()
    await dialled.send(message)
    assert await dialled.closed() == code


async def test_another_version_is_told_so(rogue: RogueBridge) -> None:
    dialled = await rogue.dial()
    await dialled.send(frame(1, 0, b"\x00\x02" + MARK))
    assert await dialled.closed() == 1002
    assert await dialled.goaway() == GoAwayReason.VERSION


AFTER_HELLO = [
    ("a second HELLO", hello(bytes(16), epoch=2)),
    ("DATA of an unknown stream", frame(DATA, 99, MARK)),
    ("HEAD of an unknown stream", frame(HEAD, 99, OK)),
    ("END of an unknown stream", frame(END, 99, b"")),
    ("RESET of an unknown stream", frame(RESET, 99, b"\x01")),
    ("CREDIT of an unknown stream", frame(CREDIT, 99, struct.pack(">I", 1))),
    ("DATA of stream 0", frame(DATA, 0, MARK)),
    ("empty DATA", frame(DATA, 99, b"")),
    ("OPEN", frame(OPEN, 1, b"\x03GET\x00\x01/\x00\x00")),
    ("an unknown type", frame(77, 0, MARK)),
    ("a flag", HEADER.pack(PING, 1, 0, 8) + bytes(8)),
    ("a payload over 64 KiB", HEADER.pack(DATA, 0, 1, 65_537) + bytes(65_537)),
    ("a payload that is not there", HEADER.pack(DATA, 0, 1, 100) + MARK),
    ("half a header", frame(PING, 0, bytes(8)) + b"\x03"),
    ("an ACK of what was never sent", frame(ACK, 0, struct.pack(">Q", 7))),
    ("an ACK of the wrong size", frame(ACK, 0, MARK)),
    ("a PONG that nobody asked for", frame(PONG, 0, bytes(8))),
    ("a PING of a stream", frame(PING, 4, bytes(8))),
    ("a GOAWAY of no reason", frame(GOAWAY, 0, b"\xee")),
    ("an empty message", b""),
]


@pytest.mark.parametrize("message", [m[1] for m in AFTER_HELLO], ids=[m[0] for m in AFTER_HELLO])
async def test_a_broken_rule_ends_the_session(rogue: RogueBridge, message: bytes) -> None:
    dialled = await rogue.attach()
    await dialled.send(message)
    assert await dialled.closed() == 1002
    assert await dialled.goaway() == GoAwayReason.PROTOCOL_ERROR


async def test_text_in_the_middle_costs_the_connection_only(rogue: RogueBridge) -> None:
    session = os.urandom(16)
    dialled = await rogue.attach(session)
    await dialled.send(MARK.decode())
    assert await dialled.closed() == 1003
    again = await rogue.dial()
    await again.send(hello(session, epoch=2, origin=1))
    (_, payload) = await again.next(HELLO)
    assert decode_hello(payload).origin == 1, "expected the session to be resumed"


@pytest.mark.parametrize("epoch", [1, 4, 5])
async def test_an_old_epoch_is_fenced_and_the_session_goes_on(rogue: RogueBridge, epoch: int) -> None:
    session = os.urandom(16)
    current = await rogue.dial()
    await current.send(hello(session, epoch=5))
    await current.next(HELLO)
    old = await rogue.dial()
    await old.send(hello(session, epoch=epoch))
    assert await old.closed() == 1008
    assert await old.goaway() == GoAwayReason.EPOCH_FENCED
    await current.send(frame(PING, 0, bytes(8)))
    assert (await current.next(PONG))[1] == bytes(8)


async def test_a_session_is_not_taken_over_by_another_bridge(paced_stack: Stack, rogue: RogueBridge) -> None:
    session = os.urandom(16)
    mine = await rogue.attach(session)
    async with RogueBridge(paced_stack) as other:
        theirs = await other.dial()
        await theirs.send(hello(session, epoch=9))
        await theirs.next(HELLO)  # a session of its own under the same id
        await mine.send(frame(PING, 0, bytes(8)))
        assert (await mine.next(PONG))[1] == bytes(8)


async def test_a_flood_of_connections_without_hello(paced_stack: Stack, rogue: RogueBridge) -> None:
    results = await asyncio.gather(*(rogue.dial() for _ in range(90)), return_exceptions=True)
    assert sum(isinstance(result, Dialled) for result in results) < 90, "expected a bound"
    await works(paced_stack)


async def test_a_flood_of_pings_is_answered_with_the_latest(rogue: RogueBridge) -> None:
    dialled = await rogue.attach()
    burst = b"".join(frame(PING, 0, struct.pack(">Q", number)) for number in range(1000))
    await dialled.send(*[burst] * 20)
    await dialled.send(frame(PING, 0, b"the last"))
    answers = [await dialled.next(PONG)]
    while answers[-1][1] != b"the last":
        answers.append(await dialled.next(PONG))
    assert len(answers) <= 22


# --- with a request at hand ------------------------------------------------------------------------------------

BREAKS = [
    ("DATA before HEAD", [frame(DATA, 0, MARK)]),
    ("END before HEAD", [frame(END, 0, b"")]),
    ("HEAD twice", [frame(HEAD, 0, OK), frame(HEAD, 0, OK)]),
    ("END twice", [frame(HEAD, 0, OK), frame(END, 0, b""), frame(END, 0, b"")]),
    ("DATA after END", [frame(HEAD, 0, OK), frame(END, 0, b""), frame(DATA, 0, MARK)]),
    ("17 informational heads", [frame(HEAD, 0, fields(status=103))] * 17),
    ("status 101", [frame(HEAD, 0, fields(status=101))]),
    ("status 700", [frame(HEAD, 0, fields(status=700))]),
    ("a field with CRLF", [frame(HEAD, 0, fields((b"x", MARK + b"\r\nx: y")))]),
    ("a name in upper case", [frame(HEAD, 0, fields((b"X" + MARK, b"y")))]),
    ("a hop-by-hop field", [frame(HEAD, 0, fields((b"transfer-encoding", b"chunked")))]),
    ("more fields than there are", [frame(HEAD, 0, struct.pack(">HH", 200, 9) + MARK)]),
    ("credit for what was not sent", [frame(CREDIT, 0, struct.pack(">I", 2**31))]),
    ("CREDIT of 0", [frame(CREDIT, 0, struct.pack(">I", 0))]),
    ("RESET of no reason", [frame(RESET, 0, b"\xee")]),
    ("RESET with a control character", [frame(RESET, 0, b"\x01" + MARK + b"\n")]),
    (
        "more DATA than the window",
        [frame(HEAD, 0, OK), b"".join(frame(DATA, 0, bytes(65_536)) for _ in range(WINDOW // 65_536 + 1))],
    ),
]


def of_stream(message: bytes, stream: int) -> bytes:
    """Put the stream's id into every frame of a message."""
    at, out = 0, b""
    while at < len(message):
        kind, flags, _, length = HEADER.unpack_from(message, at)
        at += HEADER.size + length
        out += HEADER.pack(kind, flags, stream, length) + message[at - length : at]
    return out


async def post(client: httpx.AsyncClient, stack: Stack) -> httpx.Response | httpx.HTTPError:
    try:
        return await client.post(f"{stack.url}/ollama/api/chat", json={"model": "m", "messages": []})
    except httpx.HTTPError as error:
        return error


async def test_a_broken_stream_costs_its_request_only(
    paced_stack: Stack, paced: EngineProcess, rogue: RogueBridge
) -> None:
    """While each rule is broken in turn, an answer of the real bridge goes on, byte for byte the engine's."""
    expected = await ask(paced.url, {}, 200, 0)
    async with httpx.AsyncClient(timeout=15, headers=paced_stack.headers) as client, asyncio.TaskGroup() as tasks:
        steady = tasks.create_task(ask(f"{paced_stack.url}/ollama", paced_stack.headers, 200, 100))
        await asyncio.sleep(0.2)
        async with rogue.present():
            for name, messages in BREAKS:
                dialled = await rogue.attach()
                asked = tasks.create_task(post(client, paced_stack))
                stream = await rogue.request(dialled)
                await dialled.send(*(of_stream(message, stream) for message in messages))
                assert await dialled.closed() == 1002, name
                assert await dialled.goaway() == GoAwayReason.PROTOCOL_ERROR, name
                check_refused(name, await asked)
    assert steady.result() == expected


def check_refused(name: str, got: httpx.Response | httpx.HTTPError) -> None:
    """The client sees a problem, or, where its answer had begun, that it was cut or is whole."""
    if isinstance(got, httpx.Response):
        assert MARK not in got.content, name
        whole = name in ("END twice", "DATA after END")
        assert (got.status_code == 200) == whole, (name, got.status_code)
        if not whole:
            assert got.headers["content-type"] == "application/problem+json"
    else:
        assert name in ("HEAD twice", "more DATA than the window"), (name, repr(got))


async def test_a_flood_of_resets(paced_stack: Stack, rogue: RogueBridge) -> None:
    async with (
        httpx.AsyncClient(timeout=15, headers=paced_stack.headers) as client,
        rogue.present(),
        asyncio.TaskGroup() as tasks,
    ):
        dialled = await rogue.attach()
        asked = tasks.create_task(post(client, paced_stack))
        stream = await rogue.request(dialled)
        burst = frame(RESET, stream, b"\x04") * 500
        await dialled.send(*[burst] * 20)
        got = await asked
        assert isinstance(got, httpx.Response)
        assert (got.status_code, got.json()["type"]) == (502, "urn:c2l:problem:engine-error")
        await dialled.send(frame(PING, 0, bytes(8)))
        assert (await dialled.next(PONG))[1] == bytes(8)
        await dialled.socket.close()


async def test_a_credential_that_was_revoked_opens_nothing(paced_stack: Stack) -> None:
    async with RogueBridge(paced_stack) as made:
        pass
    # What only the WebSocket of a bridge asks for is left out: a refusal comes before it is looked at.
    upgrade = {"Connection": "upgrade", "Upgrade": "websocket"}
    async with httpx.AsyncClient() as client:
        for path in ("/ws/tunnel", "/ws/bridge"):
            answer = await client.get(paced_stack.url + path, headers={**upgrade, **made.headers(path)})
            assert answer.status_code == 401
            assert "revoked" in answer.headers["www-authenticate"]
