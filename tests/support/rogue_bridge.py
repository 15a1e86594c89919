"""A paired bridge that speaks whatever a test wants: control connection and tunnel by a foreign WebSocket library."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Self

import httpx
from tests.support.stack import Stack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.contracts import control
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus
from cloudtolocalllm.tunnel.frames import GOAWAY, HEADER, HELLO, KIND_NAMES, OPEN, Hello, encode_hello

DEADLINE = 5.0
WINDOW = 256 * 1024


def hello(session: bytes, *, epoch: int = 1, origin: int = 0, received: int = 0, window: int = WINDOW) -> bytes:
    """Return a HELLO as a bridge sends it."""
    return encode_hello(Hello(1, session, epoch, received, window, 1024, origin, 0))


class Dialled:
    """One tunnel connection; what comes is kept as frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[tuple[int, int, bytes]] = []

    async def send(self, *messages: bytes | str) -> None:
        """Send messages as they are; the peer may close meanwhile."""
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await self.socket.send(message)

    async def next(self, kind: int) -> tuple[int, bytes]:
        """Wait for a frame of this kind; return its stream and payload."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for frame in self.frames:
                    if frame[0] == kind:
                        self.frames.remove(frame)
                        return frame[1:]
                self._take(await self.socket.recv())

    async def closed(self) -> int:
        """Wait until the peer closes; return its code."""
        async with asyncio.timeout(DEADLINE):
            try:
                while True:
                    self._take(await self.socket.recv())
            except ConnectionClosed as error:
                return error.rcvd.code if error.rcvd is not None else 1006

    async def goaway(self) -> int:
        """Wait until the peer closes; return the reason in its GOAWAY, 0 for none."""
        await self.closed()
        return next((payload[0] for kind, _, payload in self.frames if kind == GOAWAY), 0)

    @property
    def kinds(self) -> list[str]:
        return [KIND_NAMES[kind] for kind, _, _ in self.frames]

    def _take(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        at = 0
        while at < len(message):
            kind, _, stream, length = HEADER.unpack_from(message, at)
            at += HEADER.size + length
            self.frames.append((kind, stream, message[at - length : at]))


class RogueBridge:
    """A bridge identity of its own, so that the real bridge keeps its requests; removed at the end."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ws = stack.url.replace("http://", "ws://")
        self._closing = contextlib.AsyncExitStack()
        self.nonce = ""
        self.key = ProofKey.generate()
        self.id = ""
        self.credential = ""

    async def __aenter__(self) -> Self:
        async with httpx.AsyncClient(headers=self._stack.headers) as client:
            body = {"name": "rogue", "jwk": self.key.public_jwk()}
            answer = await client.post(f"{self._stack.url}/api/bridge", json=body)
            assert answer.status_code == 201, answer.text
            self.nonce = answer.headers["dpop-nonce"]
            self.id, self.credential = answer.json()["bridge_id"], answer.json()["credential"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()
        async with httpx.AsyncClient(headers=self._stack.headers) as client:
            answer = await client.delete(f"{self._stack.url}/api/bridge/{self.id}")
            assert answer.status_code in (204, 404), answer.text  # a test may have revoked it already

    async def dial(self, *, path: str = "/ws/tunnel", protocol: str = "c2l-tunnel.v1") -> Dialled:
        """Open a tunnel connection without a word."""
        try:
            return await self.dial_once(path=path, protocol=protocol)
        except InvalidStatus as error:
            if error.response.status_code != 401:
                raise
            self.nonce = error.response.headers["dpop-nonce"]
        return await self.dial_once(path=path, protocol=protocol)

    def headers(self, path: str) -> dict[str, str]:
        """Return what shows who it is, for one request."""
        proof = self.key.prove(
            "GET", self._stack.url + path, now=time.time(), nonce=self.nonce, credential=self.credential
        )
        return {"Authorization": f"DPoP {self.credential}", "DPoP": proof}

    async def dial_once(self, *, path: str, protocol: str) -> Dialled:
        """Open a connection with the nonce there is."""
        socket = await connect(
            self._ws + path,
            subprotocols=[Subprotocol(protocol)],
            additional_headers=self.headers(path),
            compression=None,
            ping_interval=None,
            close_timeout=1,
            proxy=None,
        )
        self._closing.push_async_callback(socket.close)
        return Dialled(socket)

    async def attach(self, session: bytes | None = None) -> Dialled:
        """Open a tunnel and shake hands."""
        dialled = await self.dial()
        await dialled.send(hello(session or os.urandom(16)))
        await dialled.next(HELLO)
        return dialled

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """Hold a control connection: being the newest, this bridge is then the first choice for requests."""
        dialled = await self.dial(path="/ws/bridge", protocol=control.SUBPROTOCOL)
        engines = (EngineStatus("e", EngineKind.OLLAMA, EngineState.UP),)
        await dialled.socket.send(control.encode(control.Hello("0.1.0", "rogue", engines)))
        welcome = await asyncio.wait_for(dialled.socket.recv(), DEADLINE)
        assert isinstance(control.decode(str(welcome)), control.Welcome)
        try:
            yield
        finally:
            await dialled.socket.close()

    async def request(self, dialled: Dialled) -> int:
        """Wait for a request and return its stream."""
        return (await dialled.next(OPEN))[0]
