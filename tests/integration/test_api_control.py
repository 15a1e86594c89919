import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.api_parts import HOST, MARK, Paired, RunningApi, engine, received, running_api
from tests.support.eventually import eventually
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from cloudtolocalllm.api import authorize, control_socket
from cloudtolocalllm.api import control as api_control
from cloudtolocalllm.api.bridge_verifier import DpopVerifier
from cloudtolocalllm.api.browser import Fields
from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.identity import Identity
from cloudtolocalllm.api.revocations import Revocations, blocked_member
from cloudtolocalllm.auth import credentials
from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineState, Hello, Presence, Revoked, Wake, Welcome, encode
from cloudtolocalllm.runtime.clock import SystemClock

HELLO = encode(Hello("0.1.0", "Desktop", (engine(EngineState.UP),)))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


async def paired(api: RunningApi) -> Paired:
    return await api.pair(api.owner)


async def refused(api: RunningApi, bridge: Paired, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with api.dial(bridge, **options):
            pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    value = json.loads(response.body)
    return response.status_code, value["type"].removeprefix("urn:c2l:problem:")


async def closed(socket: ClientConnection, timeout: float = 5.0) -> int | None:
    """Read until the connection is closed and return the code."""
    async with asyncio.timeout(timeout):
        while True:
            try:
                await socket.recv()
            except ConnectionClosed as error:
                return error.rcvd.code if error.rcvd else None


async def online(api: RunningApi) -> list[bool]:
    async with await api.sign_in(api.owner) as client:
        return [bridge["connected"] for bridge in (await client.get("/api/bridge")).json()]


async def test_a_bridge_is_welcomed_by_its_id(api: RunningApi) -> None:
    bridge = await paired(api)
    async with api.dial(bridge) as socket:
        assert socket.subprotocol == control.SUBPROTOCOL
        assert await online(api) == [False]
        await socket.send(HELLO)
        welcome = await received(socket)
        assert isinstance(welcome, Welcome)
        assert (welcome.bridge_id, len(welcome.nonce)) == (bridge.id, 32)
        assert await online(api) == [True]
        await (await socket.ping())
    await eventually(lambda: online(api), lambda found: found == [False])


@pytest.mark.parametrize(("code", "patience"), [(1001, 60.0), (None, 0.5)], ids=["took leave", "cut off"])
async def test_only_a_machine_that_was_cut_off_is_waited_for(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch, code: int | None, patience: float
) -> None:
    monkeypatch.setattr(authorize, "PATIENCE", patience)
    bridge, person = await paired(api), api.key_of(api.owner)
    async with api.dial(bridge) as socket:
        await socket.send(HELLO)
        await received(socket)
        if code is None:
            socket.transport.abort()
        else:
            await socket.close(code)
    await eventually(lambda: online(api), lambda found: found == [False])
    began = time.monotonic()
    async with asyncio.timeout(20):
        response = await api.authorize("GET", "/v1/models", person.headers)
    assert response.headers["c2l-problem"] == "bridge-offline"
    if code is None:
        assert time.monotonic() - began > patience - 0.2


def bearer(text: str) -> dict[str, object]:
    return {"additional_headers": {"authorization": f"Bearer {text}"}}


async def test_who_may_not_open_it(api: RunningApi) -> None:
    bridge = await paired(api)
    nobody = (401, "unauthenticated")
    assert await refused(api, bridge, additional_headers={}) == nobody
    assert await refused(api, bridge, **bearer("nonsense")) == nobody
    assert await refused(api, bridge, **bearer(bridge.credential)) == nobody
    assert await refused(api, bridge, **bearer(api.person().key)) == (403, "forbidden")
    other = bridge.credential[:-3] + ("AAA" if bridge.credential[-3:] != "AAA" else "QQQ")
    assert await refused(api, replace(bridge, credential=other)) == nobody
    assert await refused(api, replace(bridge, key=ProofKey.generate())) == nobody
    assert await refused(api, replace(bridge, credential=api.person().key)) == nobody
    assert await refused(api, bridge, origin=f"http://{HOST}") == (403, "forbidden")
    assert await refused(api, bridge, subprotocols=None) == (400, "bad-request")
    assert await refused(api, bridge, subprotocols=[Subprotocol("other")]) == (400, "bad-request")
    await api.registry.revoke(api.owner, bridge.id)
    await eventually(lambda: refused_by_now(api, bridge), lambda found: found == nobody, within=2)


async def refused_by_now(api: RunningApi, bridge: Paired) -> tuple[int, str] | None:
    """Return how a bridge is refused; None while it is not."""
    try:
        async with api.dial(bridge):
            return None
    except InvalidStatus as error:
        value = json.loads(error.response.body)
        return error.response.status_code, value["type"].removeprefix("urn:c2l:problem:")


async def test_a_proof_is_taken_once_and_for_this_route_only(api: RunningApi) -> None:
    bridge = await paired(api)
    good = bridge.headers("/ws/bridge", api.nonce())
    async with api.dial(bridge, additional_headers=good):
        pass
    nobody = (401, "unauthenticated")
    assert await refused(api, bridge, additional_headers=good) == nobody
    for fields in (
        bridge.headers("/ws/tunnel", api.nonce()),
        bridge.headers("/ws/bridge", api.nonce(), method="POST"),
        bridge.headers("/ws/bridge", "A" * 32),
        {"authorization": f"DPoP {bridge.credential}"},
    ):
        assert await refused(api, bridge, additional_headers=fields) == nobody


async def test_a_bridge_without_a_nonce_is_given_one(api: RunningApi) -> None:
    bridge = await paired(api)
    with pytest.raises(InvalidStatus) as caught:
        async with api.dial(bridge, additional_headers=bridge.headers("/ws/bridge")):
            pass
    headers = caught.value.response.headers
    assert 'error="use_dpop_nonce"' in headers["www-authenticate"]
    async with api.dial(bridge, additional_headers=bridge.headers("/ws/bridge", headers["dpop-nonce"])) as socket:
        await socket.send(HELLO)
        assert isinstance(await received(socket), Welcome)


async def test_an_expired_credential_ends_the_connection(api: RunningApi) -> None:
    bridge = await paired(api)
    short, _ = credentials.issue(
        api.ring, bridge=bridge.id, user=api.owner, thumbprint=bridge.key.thumbprint, now=time.time(), lifetime=2.0
    )
    bridge = replace(bridge, credential=short)
    async with api.bridge(bridge) as socket:
        assert await closed(socket) == 1008
    assert await refused(api, bridge) == (401, "unauthenticated")


async def raw_upgrade(api: RunningApi, bridge: Paired) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the head of an upgrade request by hand."""
    reader, writer = await asyncio.open_unix_connection(api.socket)
    fields = {
        "host": HOST, "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol": control.SUBPROTOCOL,
        **bridge.headers("/ws/bridge", api.nonce()),
    }  # fmt: skip
    head = "GET /ws/bridge HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{head}\r\n".encode())
    return reader, writer


@pytest.fixture
def slow_verification(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have every verification wait for this."""
    go_on = asyncio.Event()
    verify = DpopVerifier.verify

    async def slowly(self: DpopVerifier, fields: Fields, *, method: str, path: str) -> Identity:
        await go_on.wait()
        return await verify(self, fields, method=method, path=path)

    monkeypatch.setattr(DpopVerifier, "verify", slowly)
    return go_on


@pytest.mark.parametrize(
    "early",
    [
        Frame(Opcode.PING, b"x").serialize(mask=True),
        Frame(Opcode.TEXT, HELLO.encode()).serialize(mask=True),
        Frame(Opcode.CLOSE, b"").serialize(mask=True),
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"\xff",
    ],
    ids=["ping", "text", "close", "request", "no-frame"],
)
async def test_what_comes_before_the_answer_ends_the_connection(
    api: RunningApi, slow_verification: asyncio.Event, early: bytes
) -> None:
    bridge = await paired(api)
    reader, writer = await raw_upgrade(api, bridge)
    await asyncio.sleep(0.05)  # else it may come with the head and be dropped with it
    writer.write(early)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    slow_verification.set()
    writer.close()
    async with api.bridge(bridge) as socket:
        await (await socket.ping())


@pytest.mark.parametrize("how", ["eof", "abort"])
async def test_who_leaves_before_the_answer_leaves_nothing_behind(
    api: RunningApi, slow_verification: asyncio.Event, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = await paired(api)
    reader, writer = await raw_upgrade(api, bridge)
    await asyncio.sleep(0.05)
    if how == "eof":
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    else:
        writer.transport.abort()
    await asyncio.sleep(0.05)
    slow_verification.set()
    async with api.bridge(bridge) as socket:
        assert await online(api) == [True]
        await (await socket.ping())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    writer.close()


async def test_stopping_ends_admissions_under_way(tmp_path: Path, slow_verification: asyncio.Event) -> None:
    async with running_api(tmp_path) as api:
        bridge = await paired(api)
        reader, writer = await raw_upgrade(api, bridge)
        await asyncio.sleep(0.05)
        api.stop.set()
        async with asyncio.timeout(6):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await asyncio.wait([api.task])
        assert api.task.exception() is None
        writer.close()


async def test_a_session_does_not_open_it(api: RunningApi) -> None:
    async with await api.sign_in(api.owner) as client:
        upgrade = {
            "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol": control.SUBPROTOCOL,
        }  # fmt: skip
        response = await client.get("/ws/bridge", headers={**upgrade, **MARK})
        assert (response.status_code, response.json()["status"]) == (403, 403)
        response = await client.get("/ws/elsewhere", headers={**upgrade, **MARK})
        assert (response.status_code, response.json()["status"]) == (404, 404)
        assert (await client.get("/ws/bridge")).status_code == 404


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "{}", '{"type": "wake", "instance": "px-1"}', '{"type": "hello"}', "[" * 5000, "\u0000",
     encode(Presence(())), encode(Welcome("x")), encode(Revoked())],
)  # fmt: skip
async def test_anything_but_a_hello_first_ends_the_connection(api: RunningApi, message: str) -> None:
    bridge = await paired(api)
    async with api.dial(bridge) as socket:
        await socket.send(message)
        assert await closed(socket) == 1008


@pytest.mark.parametrize("message", [HELLO, encode(Wake("px-1")), encode(Welcome("x")), "nonsense", b"\x00\x01"])
async def test_after_the_hello_only_presence_may_come(api: RunningApi, message: str | bytes) -> None:
    bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        await socket.send(message)
        assert await closed(socket) == 1008


async def test_broken_frames_end_the_connection_and_nothing_else(api: RunningApi) -> None:
    bridge, other = await paired(api), await paired(api)
    async with api.bridge(other) as good:
        for frame, code in (
            (Frame(Opcode.TEXT, b"\xff\xfe"), 1007),
            (Frame(Opcode.TEXT, b"x" * (control.MAX_MESSAGE + 1)), 1009),
            (Frame(Opcode.TEXT, b"{", fin=False), 1008),
            (Frame(Opcode.CONT, b"x"), 1002),
        ):
            async with api.bridge(bridge) as socket:
                socket.transport.write(frame.serialize(mask=True))
                assert await closed(socket) == code, frame
        async with api.bridge(bridge) as socket:
            socket.transport.write(Frame(Opcode.TEXT, b"unmasked").serialize(mask=False))
            assert await closed(socket) == 1002
        async with api.bridge(bridge) as socket:
            reserved_bit = bytearray(Frame(Opcode.TEXT, b"x").serialize(mask=True))
            reserved_bit[0] |= 0x40
            socket.transport.write(bytes(reserved_bit))
            assert await closed(socket) == 1002
        await (await good.ping())


async def test_chatter_is_cut(api: RunningApi) -> None:
    bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        with contextlib.suppress(ConnectionClosed):
            for n in range(100):
                state = EngineState.UP if n % 2 else EngineState.DOWN
                await socket.send(encode(Presence((engine(state),))))
        assert await closed(socket) == 1008


async def test_who_says_nothing_is_cut(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_control, "HELLO_TIMEOUT", 0.0)
    bridge = await paired(api)
    async with api.dial(bridge) as socket:
        assert await closed(socket) is None


async def test_a_silent_bridge_is_cut_and_one_that_pings_is_not(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, lively = await paired(api), await paired(api)
    async with api.bridge(silent) as dead, api.bridge(lively) as alive:
        monkeypatch.setattr(control, "DEAD_AFTER", 0.6)

        async def ping() -> None:
            while True:
                await alive.ping()
                await asyncio.sleep(0.1)

        pinging = asyncio.get_running_loop().create_task(ping())
        try:
            assert await closed(dead) is None
            assert await online(api) == [False, True]
        finally:
            pinging.cancel()
            await asyncio.wait([pinging])


async def test_a_deleted_bridge_is_told_and_cut_on_all_its_connections(api: RunningApi) -> None:
    bridge, other = await paired(api), await paired(api)
    async with api.bridge(bridge) as first, api.bridge(bridge) as second, api.bridge(other) as good:
        async with await api.sign_in(api.owner) as client:
            assert (await client.delete(f"/api/bridge/{bridge.id}", headers=MARK)).status_code == 204
        for socket in (first, second):
            assert await received(socket) == Revoked()
            assert await closed(socket) == 1008
        await (await good.ping())
    assert await refused(api, bridge) == (401, "unauthenticated")
    await eventually(lambda: online(api), lambda found: found == [False])


async def test_a_bridge_deleted_by_another_process_is_cut_within_two_seconds(api: RunningApi) -> None:
    bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        await api.registry.revoke(api.owner, bridge.id)
        assert await received(socket, 2.0) == Revoked()
        assert await closed(socket) == 1008


async def test_a_bridge_deleted_between_upgrade_and_hello_does_not_get_in(api: RunningApi) -> None:
    bridge = await paired(api)
    async with api.dial(bridge) as socket:
        async with await api.sign_in(api.owner) as client:
            assert (await client.delete(f"/api/bridge/{bridge.id}", headers=MARK)).status_code == 204
        await socket.send(HELLO)
        assert await received(socket) == Revoked()
        assert await closed(socket) == 1008


async def only_closed(socket: ClientConnection, within: float) -> int | None:
    """Return the code by which a connection is closed without a word before."""
    async with asyncio.timeout(within):
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    return caught.value.rcvd.code if caught.value.rcvd else None


async def test_a_blocked_users_bridges_are_cut_and_stay_out_until_the_block_is_lifted(api: RunningApi) -> None:
    bridge, theirs = await paired(api), await api.pair(api.person().id)
    revocations = Revocations(api.state, LocalBus(), SystemClock())
    async with api.bridge(bridge) as socket, api.bridge(theirs) as good, api.dial(bridge) as silent:
        await revocations.add(blocked_member(api.owner), time.time() + 60)
        assert await only_closed(socket, 2.0) == 1008, "it is not revoked, and must not forget its credential"
        await silent.send(HELLO)
        assert await only_closed(silent, 2.0) == 1008
        await (await good.ping())
    assert await refused(api, bridge) == (401, "unauthenticated")
    await revocations.lift(blocked_member(api.owner))
    await eventually(lambda: refused_by_now(api, bridge), lambda found: found is None, within=2)
    async with api.bridge(bridge) as socket:
        await (await socket.ping())


async def test_connections_of_one_bridge_are_bounded_and_the_oldest_goes(api: RunningApi) -> None:
    bridge = await paired(api)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(api.bridge(bridge)) for _ in range(api_control.MAX_PER_BRIDGE + 1)]
        assert await closed(sockets[0]) == 1008
        for socket in sockets[1:]:
            await (await socket.ping())
        assert await online(api) == [True]


async def test_a_bridge_that_does_not_read_is_cut(api: RunningApi) -> None:
    bridge = await paired(api)
    async with api.bridge(bridge) as socket:
        socket.transport.pause_reading()
        ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 1000
        for _ in range(200):
            if socket.transport.is_closing():
                break
            socket.transport.write(ping)
            await asyncio.sleep(0.005)
            if await online(api) == [False]:
                break
        else:
            pytest.fail("expected the connection to be cut")
        socket.transport.abort()


async def test_stopping_asks_bridges_to_come_back(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        bridge = await paired(api)
        async with api.bridge(bridge) as socket:
            api.stop.set()
            assert await closed(socket) == control_socket.SERVICE_RESTART


async def test_a_bridge_that_does_not_close_does_not_hold_the_service(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        bridge = await paired(api)
        async with api.bridge(bridge) as socket:
            socket.transport.pause_reading()
            api.stop.set()
            async with asyncio.timeout(6):
                await asyncio.wait([api.task])
            assert api.task.exception() is None
            socket.transport.abort()
