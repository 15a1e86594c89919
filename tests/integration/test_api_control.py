import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api_parts import HOST, MARK, RunningApi, engine, received, running_api
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from cloudtolocalllm.api import control as api_control
from cloudtolocalllm.api import control_socket
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineState, Hello, Presence, Revoked, Wake, Welcome, encode

HELLO = encode(Hello("0.1.0", "Desktop", (engine(EngineState.UP),)))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as running:
        yield running


def paired(api: RunningApi) -> tuple[str, str]:
    record, credential = api.store.create_bridge(api.store.owner(), "Desktop")
    return record.id, credential


async def refused(api: RunningApi, credential: str, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with api.dial(credential, **options):
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
    async with await api.sign_in(api.store.owner()) as client:
        return [bridge["connected"] for bridge in (await client.get("/api/bridge")).json()]


async def test_a_bridge_is_welcomed_by_its_id(api: RunningApi) -> None:
    bridge, credential = paired(api)
    async with api.dial(credential) as socket:
        assert socket.subprotocol == control.SUBPROTOCOL
        assert await online(api) == [False]
        await socket.send(HELLO)
        assert await received(socket) == Welcome(bridge)
        assert await online(api) == [True]
        await (await socket.ping())
    for _ in range(100):
        if await online(api) == [False]:
            break
        await asyncio.sleep(0.02)
    assert await online(api) == [False]


async def test_who_may_not_open_it(api: RunningApi) -> None:
    bridge, credential = paired(api)
    key = api.person().key
    assert await refused(api, "nonsense") == (401, "unauthenticated")
    assert await refused(api, credential[:-1] + ("A" if credential[-1] != "A" else "E")) == (401, "unauthenticated")
    assert await refused(api, key) == (403, "forbidden")
    assert await refused(api, credential, origin=f"http://{HOST}") == (403, "forbidden")
    assert await refused(api, credential, subprotocols=None) == (400, "bad-request")
    assert await refused(api, credential, subprotocols=[Subprotocol("other")]) == (400, "bad-request")
    api.store.delete_bridge(api.store.owner(), bridge)
    assert await refused(api, credential) == (401, "unauthenticated")


async def test_a_session_does_not_open_it(api: RunningApi) -> None:
    async with await api.sign_in(api.store.owner()) as client:
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
    _, credential = paired(api)
    async with api.dial(credential) as socket:
        await socket.send(message)
        assert await closed(socket) == 1008


@pytest.mark.parametrize("message", [HELLO, encode(Wake("px-1")), encode(Welcome("x")), "nonsense", b"\x00\x01"])
async def test_after_the_hello_only_presence_may_come(api: RunningApi, message: str | bytes) -> None:
    _, credential = paired(api)
    async with api.bridge(credential) as socket:
        await socket.send(message)
        assert await closed(socket) == 1008


async def test_broken_frames_end_the_connection_and_nothing_else(api: RunningApi) -> None:
    _, credential = paired(api)
    _, other = paired(api)
    async with api.bridge(other) as good:
        for frame, code in (
            (Frame(Opcode.TEXT, b"\xff\xfe"), 1007),
            (Frame(Opcode.TEXT, b"x" * (control.MAX_MESSAGE + 1)), 1009),
            (Frame(Opcode.TEXT, b"{", fin=False), 1008),
            (Frame(Opcode.CONT, b"x"), 1002),
        ):
            async with api.bridge(credential) as socket:
                socket.transport.write(frame.serialize(mask=True))
                assert await closed(socket) == code, frame
        async with api.bridge(credential) as socket:
            socket.transport.write(Frame(Opcode.TEXT, b"unmasked").serialize(mask=False))
            assert await closed(socket) == 1002
        async with api.bridge(credential) as socket:
            reserved_bit = bytearray(Frame(Opcode.TEXT, b"x").serialize(mask=True))
            reserved_bit[0] |= 0x40
            socket.transport.write(bytes(reserved_bit))
            assert await closed(socket) == 1002
        await (await good.ping())


async def test_chatter_is_cut(api: RunningApi) -> None:
    _, credential = paired(api)
    async with api.bridge(credential) as socket:
        with contextlib.suppress(ConnectionClosed):
            for n in range(100):
                state = EngineState.UP if n % 2 else EngineState.DOWN
                await socket.send(encode(Presence((engine(state),))))
        assert await closed(socket) == 1008


async def test_who_says_nothing_is_cut(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_control, "HELLO_TIMEOUT", 0.0)
    _, credential = paired(api)
    async with api.dial(credential) as socket:
        assert await closed(socket) is None


async def test_a_silent_bridge_is_cut_and_one_that_pings_is_not(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, silent = paired(api)
    _, lively = paired(api)
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
    bridge, credential = paired(api)
    async with api.bridge(credential) as first, api.bridge(credential) as second:
        async with await api.sign_in(api.store.owner()) as client:
            assert (await client.delete(f"/api/bridge/{bridge}", headers=MARK)).status_code == 204
        for socket in (first, second):
            assert await received(socket) == Revoked()
            assert await closed(socket) == 1008
    assert await refused(api, credential) == (401, "unauthenticated")


async def test_a_bridge_deleted_by_another_process_is_cut_within_a_sweep(api: RunningApi) -> None:
    bridge, credential = paired(api)
    async with api.bridge(credential) as socket:
        api.store.delete_bridge(api.store.owner(), bridge)
        assert await received(socket, 3.0) == Revoked()


async def test_a_bridge_deleted_between_upgrade_and_hello_does_not_get_in(api: RunningApi) -> None:
    bridge, credential = paired(api)
    async with api.dial(credential) as socket:
        api.store.delete_bridge(api.store.owner(), bridge)
        await socket.send(HELLO)
        assert await received(socket) == Revoked()
        assert await closed(socket) == 1008


async def test_connections_of_one_bridge_are_bounded_and_the_oldest_goes(api: RunningApi) -> None:
    _, credential = paired(api)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(api.bridge(credential)) for _ in range(api_control.MAX_PER_BRIDGE + 1)
        ]
        assert await closed(sockets[0]) == 1008
        for socket in sockets[1:]:
            await (await socket.ping())
        assert await online(api) == [True]


async def test_a_bridge_that_does_not_read_is_cut(api: RunningApi) -> None:
    _, credential = paired(api)
    async with api.bridge(credential) as socket:
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
        _, credential = paired(api)
        async with api.bridge(credential) as socket:
            api.stop.set()
            assert await closed(socket) == control_socket.SERVICE_RESTART


async def test_a_bridge_that_does_not_close_does_not_hold_the_service(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        _, credential = paired(api)
        async with api.bridge(credential) as socket:
            socket.transport.pause_reading()
            api.stop.set()
            async with asyncio.timeout(6):
                await asyncio.wait([api.task])
            assert api.task.exception() is None
            socket.transport.abort()
