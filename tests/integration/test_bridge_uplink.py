"""The uplink, pairing and the whole service against a scripted cloud."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from tests.support.bridge_parts import Ask
from tests.support.link_parts import listen, until
from tests.support.scripted_engine import Asked, scripted_engine

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.auth.keys import DAY
from cloudtolocalllm.bridge import control
from cloudtolocalllm.bridge.control import RevokedError
from cloudtolocalllm.bridge.engines import health
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError
from cloudtolocalllm.bridge.pairing import pair
from cloudtolocalllm.bridge.service import serve
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.contracts.control import (
    SUBPROTOCOL,
    EngineState,
    Hello,
    Message,
    Presence,
    Revoked,
    Wake,
    Welcome,
    decode,
    encode,
)
from cloudtolocalllm.link import TunnelServer
from cloudtolocalllm.tunnel import GoAwayReason, RequestHead


class Cloud:
    """An API for one bridge: takes the control connection and remembers what it says."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.upgrades: list[WSUpgradeRequest] = []
        self.pings = 0
        self.status = 101
        self.challenge: dict[str, str] = {}
        """Fields of the next refusal; one that asks for a nonce is the last."""
        self.wire: WSTransport | None = None
        self.port = 0
        self.close_codes: list[WSCloseCode] = []

    def accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
        self.upgrades.append(request)
        if self.status != 101:
            refusal = WSUpgradeResponse.create_error_response(self.status, extra_headers=self.challenge)
            if "use_dpop_nonce" in self.challenge.get("WWW-Authenticate", ""):
                self.status = 101
            return WSUpgradeResponseWithListener(refusal, None)
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, _Control(self))

    def send(self, message: Message) -> None:
        assert self.wire is not None
        self.wire.send(WSMsgType.TEXT, encode(message).encode())

    def hellos(self) -> list[Hello]:
        return [message for message in self.messages if isinstance(message, Hello)]


class _Control(WSListener):
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._cloud.wire = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._cloud.wire is transport:
            self._cloud.wire = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            message = decode(frame.get_payload_as_utf8_text())
            self._cloud.messages.append(message)
            if isinstance(message, Hello):
                self._cloud.send(Welcome("br-test"))
        elif frame.msg_type is WSMsgType.PING:
            self._cloud.pings += 1
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            self._cloud.close_codes.append(frame.get_close_code())
            transport.disconnect()


@asynccontextmanager
async def running_cloud(port: int = 0) -> AsyncGenerator[Cloud]:
    cloud = Cloud()
    server = await ws_create_server(cloud.accept, "127.0.0.1", port, enable_auto_pong=False)
    cloud.port = server.sockets[0].getsockname()[1]
    try:
        yield cloud
    finally:
        server.close()
        if cloud.wire is not None:
            cloud.wire.disconnect(graceful=False)
        await asyncio.sleep(0.02)


def identity(server: str) -> BridgeIdentity:
    now = time.time()
    return BridgeIdentity(server, "br-test", "the-credential", ProofKey.generate(), now, now + 30 * 86_400)


@asynccontextmanager
async def running_bridge(tmp_path: Path, port: int, *engines: str) -> AsyncGenerator["asyncio.Task[None]"]:
    path = tmp_path / "credential.json"
    if not path.exists():
        identity(f"http://127.0.0.1:{port}").save(path)
    settings = BridgeSettings(
        server=f"http://127.0.0.1:{port}",
        credential_file=path,
        engines=engines or ("http://127.0.0.1:9",),
        name="den",
        drain_grace=0.2,
    )
    stop = asyncio.Event()
    task = asyncio.get_running_loop().create_task(serve(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(5):
            await asyncio.wait([task])
        if not task.cancelled() and not isinstance(task.exception(), RevokedError):
            task.result()


async def test_hello_presence_and_pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "HEARTBEAT", 0.05)
    async with (
        running_cloud() as cloud,
        scripted_engine() as engine,
        running_bridge(tmp_path, cloud.port, engine.url),
    ):
        await until(lambda: bool(cloud.messages))
        [upgrade] = cloud.upgrades
        assert upgrade.path == b"/ws/bridge"
        assert upgrade.headers["authorization"] == "DPoP the-credential"
        assert upgrade.headers["dpop"]
        [hello] = cloud.hellos()
        assert hello.name == "den"
        assert [status.state for status in hello.engines] == [EngineState.UP]
        await until(lambda: cloud.pings >= 3)
        assert str(engine.port) in hello.engines[0].id
        assert "tiny" not in json.dumps([encode(message) for message in cloud.messages]), "expected no model names"


async def test_it_takes_leave_when_it_is_told_to_end(tmp_path: Path) -> None:
    async with running_cloud() as cloud:
        async with running_bridge(tmp_path, cloud.port):
            await until(lambda: bool(cloud.messages))
        await until(lambda: bool(cloud.close_codes))
        assert cloud.close_codes == [WSCloseCode.GOING_AWAY]


async def test_presence_follows_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_INTERVAL", 0.1)
    async with (
        running_cloud() as cloud,
        scripted_engine() as engine,
        running_bridge(tmp_path, cloud.port, engine.url),
    ):
        await until(lambda: bool(cloud.messages))
        engine.health = 503
        await until(lambda: len(cloud.messages) > 1)
        last = cloud.messages[-1]
        assert isinstance(last, Presence)
        assert last.engines[0].state is EngineState.LOADING


async def test_it_connects_again_to_a_cloud_that_restarts(tmp_path: Path) -> None:
    async with running_cloud() as first:
        port = first.port
        context = running_bridge(tmp_path, port)
        await context.__aenter__()
        try:
            await until(lambda: bool(first.hellos()))
        except BaseException:
            await context.__aexit__(None, None, None)
            raise
    try:
        async with running_cloud(port) as second:
            await until(lambda: bool(second.hellos()))
    finally:
        await context.__aexit__(None, None, None)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_that_ends_within_the_handshake_is_tried_again(tmp_path: Path, reset: bool) -> None:
    ended = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if reset:
            writer.transport.abort()
        writer.close()
        ended.set()

    server = await asyncio.start_server(end, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running_bridge(tmp_path, port) as task:
        async with server:
            await asyncio.wait_for(ended.wait(), 5)
        async with running_cloud(port) as cloud:
            await until(lambda: bool(cloud.hellos()))
        assert not task.done()


async def test_a_silent_cloud_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "HEARTBEAT", 0.05)
    monkeypatch.setattr(control, "DEAD_AFTER", 0.2)
    async with running_cloud() as cloud, running_bridge(tmp_path, cloud.port):
        await until(lambda: bool(cloud.hellos()))
        monkeypatch.setattr(_Control, "on_ws_frame", lambda *_: None)
        await until(lambda: len(cloud.upgrades) >= 2)


async def test_a_refused_credential_is_tried_again_slowly_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cloud() as cloud:
        cloud.status = 401
        async with running_bridge(tmp_path, cloud.port) as task:
            await until(lambda: bool(cloud.upgrades))
            await asyncio.sleep(0.5)
            assert len(cloud.upgrades) == 1
            assert not task.done()
    assert any("refuses this bridge" in record.getMessage() for record in caplog.records)
    assert "the-credential" not in caplog.text


async def test_a_nonce_that_is_asked_for_is_used_at_once(tmp_path: Path) -> None:
    async with running_cloud() as cloud:
        cloud.status = 401
        cloud.challenge = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n-1"}
        async with running_bridge(tmp_path, cloud.port):
            await until(lambda: bool(cloud.hellos()))
            assert [nonce_of(upgrade) for upgrade in cloud.upgrades] == [None, "n-1"]
            cloud.status = 101
            cloud.send(Welcome("br-test", "n-2"))
            await asyncio.sleep(0.05)
            assert cloud.wire is not None
            cloud.wire.disconnect(graceful=False)
            await until(lambda: len(cloud.upgrades) == 3)
            assert nonce_of(cloud.upgrades[-1]) == "n-2"


async def test_a_refusal_that_says_revoked_ends_it(tmp_path: Path) -> None:
    async with running_cloud() as cloud:
        cloud.status = 401
        cloud.challenge = {"WWW-Authenticate": 'DPoP error="revoked"', "DPoP-Nonce": "n-1"}
        async with running_bridge(tmp_path, cloud.port) as task, asyncio.timeout(5):
            with pytest.raises(RevokedError):
                await task
            assert len(cloud.upgrades) == 1


def nonce_of(upgrade: WSUpgradeRequest) -> str | None:
    claims = upgrade.headers["dpop"].split(".")[1]
    nonce: str | None = json.loads(base64.urlsafe_b64decode(claims + "==")).get("nonce")
    return nonce


async def test_a_revoked_bridge_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_cloud() as cloud, running_bridge(tmp_path, cloud.port) as task:
        await until(lambda: bool(cloud.hellos()))
        cloud.send(Revoked())
        async with asyncio.timeout(5):
            with pytest.raises(RevokedError, match="bridge login"):
                await task
    assert any("revoked" in record.getMessage() for record in caplog.records)


async def test_unknown_messages_cost_nothing(tmp_path: Path) -> None:
    async with running_cloud() as cloud, running_bridge(tmp_path, cloud.port):
        await until(lambda: bool(cloud.hellos()))
        assert cloud.wire is not None
        for text in (b"{", b'{"type": "future"}', b"[]"):
            cloud.wire.send(WSMsgType.TEXT, text)
        await asyncio.sleep(0.1)
        assert len(cloud.upgrades) == 1
        assert cloud.wire is not None


async def test_without_a_credential_it_says_what_to_do(tmp_path: Path) -> None:
    settings = BridgeSettings(server="http://127.0.0.1:9", credential_file=tmp_path / "none.json")
    with pytest.raises(PairingError, match="pair this bridge first"):
        await serve(settings, asyncio.Event())


# --- wake-ups -----------------------------------------------------------------------------------------------------


async def test_a_wake_up_dials_once_and_another_instance_dials_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TunnelServer()
    listener, tunnel_port = await listen(server)
    # Control and tunnel are at different ports here; at a real edge they are one.
    monkeypatch.setattr(
        "cloudtolocalllm.bridge.service.websocket_url",
        lambda _server, target: f"ws://127.0.0.1:{tunnel_port}{target}",
    )
    try:
        async with (
            running_cloud() as cloud,
            scripted_engine() as engine,
            running_bridge(tmp_path, cloud.port, engine.url),
        ):
            await until(lambda: bool(cloud.hellos()))
            assert server.tunnels() == [], "expected no tunnel before it is wanted"
            for _ in range(3):
                cloud.send(Wake("px-a"))
            await until(lambda: bool(server.tunnels()) and server.tunnels()[0].attached)
            [first] = server.tunnels()
            cloud.send(Wake("px-a"))
            await asyncio.sleep(0.1)
            assert server.tunnels() == [first]

            hold = asyncio.Event()

            async def wait(asked: Asked) -> None:
                await hold.wait()
                asked.json({"ok": 1})

            engine.answer = wait
            ask = Ask()
            head = RequestHead("POST", "/v1/chat/completions", ((b"content-length", b"2"),))
            ask.stream = first.open(head, ask)
            ask.stream.send_data(b"{}")
            ask.stream.end()
            await until(lambda: len(engine.asked) == 1)
            cloud.send(Wake("px-b"))
            await until(lambda: len([tunnel for tunnel in server.tunnels() if tunnel.attached]) == 2)
            hold.set()
            await ask.finished()
            assert ask.json == {"ok": 1}, "expected the older tunnel to finish its answer"
            await until(lambda: len(server.tunnels()) == 1)
            assert server.tunnels()[0] is not first
    finally:
        await server.close(GoAwayReason.SHUTDOWN, 0.1)
        listener.close()


# --- pairing ------------------------------------------------------------------------------------------------------


async def test_pairing_sends_the_public_key_and_nothing_more() -> None:
    async def take(asked: Asked) -> None:
        asked.json({"bridge_id": "br-1", "credential": "c-1", "expires": time.time() + 1000}, 201)

    async with scripted_engine(answer=take) as cloud:
        found = await pair(cloud.url, "the-key", "den")
        [asked] = cloud.asked
        assert (asked.method, asked.target) == ("POST", "/api/bridge")
        assert asked.field("authorization") == "Bearer the-key"
        assert json.loads(asked.body) == {"name": "den", "jwk": found.key.public_jwk()}
    assert (found.server, found.bridge_id, found.credential) == (cloud.url, "br-1", "c-1")


@pytest.mark.parametrize(
    ("status", "value", "text"),
    [
        (401, {}, "refuses the API key"),
        (500, {}, "got 500"),
        (201, {}, "time to come"),
        (201, {"bridge_id": "x", "credential": "x", "expires": 5}, "time to come"),
        (201, {"bridge_id": 1, "credential": "x", "expires": time.time() + DAY}, "texts"),
        (201, {"bridge_id": "x", "credential": "a b", "expires": time.time() + DAY}, "texts"),
    ],
)
async def test_pairing_says_what_is_wrong(status: int, value: object, text: str) -> None:
    async def refuse(asked: Asked) -> None:
        asked.json(value, status)

    async with scripted_engine(answer=refuse) as cloud:
        with pytest.raises(PairingError, match=text) as caught:
            await pair(cloud.url, "the-key", "den")
        assert "the-key" not in str(caught.value)


async def test_pairing_without_a_server_says_so() -> None:
    with pytest.raises(PairingError, match="does not answer"):
        await pair("http://127.0.0.1:9", "the-key", "den")
