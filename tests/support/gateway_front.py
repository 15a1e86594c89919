"""A server in front of a real bridge, for `connect`: HTTP in, the bridge's tunnel out. The bridge may go and come."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.bridge_parts import Home, home
from tests.support.sealed_client import link_of

from cloudtolocalllm.contracts.problems import CONTENT_TYPE, Problem, problem_content
from cloudtolocalllm.link import Stream
from cloudtolocalllm.runtime.http1 import Headers, HttpServer, Request, RequestHandler, Responder
from cloudtolocalllm.runtime.http1.messages import CHUNKED
from cloudtolocalllm.tunnel import RequestHead, ResetReason, ResponseHead


class GatewayFront:
    """The bridge of one folder, reached by HTTP."""

    def __init__(self, folder: Path, engine: str, **settings: Any) -> None:
        self._folder = folder
        self._engine = engine
        self._settings = settings
        self._running = AsyncExitStack()
        self.home: Home | None = None
        self.port = 0
        self.machines: list[Any] = []
        """What the server says are the account's."""

    async def start(self) -> None:
        """Start the bridge; what it keeps is in its folder."""
        self.home = await self._running.enter_async_context(home(self._folder, self._engine, **self._settings))

    async def stop(self) -> None:
        """End the bridge, and what it has in memory."""
        self.home = None
        await self._running.aclose()
        self._running = AsyncExitStack()

    def invite(self) -> str:
        """Return a pairing link."""
        assert self.home is not None
        return f"http://127.0.0.1:{self.port}/pair#{link_of(self.home).fragment}"

    def __call__(self, request: Request, responder: Responder) -> RequestHandler:
        return _Passing(self, request, responder)


class _Passing:
    """One request: a handler of both sides."""

    def __init__(self, front: GatewayFront, request: Request, responder: Responder) -> None:
        self._front = front
        self._request = request
        self._responder = responder
        self._content = bytearray()
        self._stream: Stream | None = None
        self._begun = False
        self._over = False

    def on_body(self, data: bytes) -> None:
        self._content += data

    def on_body_end(self, trailers: Headers) -> None:
        request = self._request
        if request.path == "/healthz":
            self._responder.respond(200, (), b"ok")
        elif request.path == "/api/streaming/status":
            content = json.dumps({"state": "ready", "bridges": self._front.machines, "proxy": None}).encode()
            self._responder.respond(200, ((b"content-type", b"application/json"),), content)
        elif self._front.home is None:
            content = problem_content(Problem.BRIDGE_OFFLINE, "It is away.")
            self._responder.respond(503, ((b"content-type", CONTENT_TYPE.encode()),), content)
        else:
            kept = tuple(field for field in request.headers if field[0] in (b"content-type", b"accept"))
            length = ((b"content-length", b"%d" % len(self._content)),) if self._content else ()
            head = RequestHead(request.method, request.target, (*kept, *length))
            self._stream = self._front.home.tunnel.open(head, self)
            if self._content:
                self._stream.send_data(bytes(self._content))
            self._stream.end()

    def on_disconnect(self) -> None:
        if self._stream is not None and not self._over:
            self._stream.reset(ResetReason.CANCELLED)

    def on_writable(self, writable: bool | None = None) -> None:
        """Both sides have one of this name; nothing here is larger than a buffer."""

    def on_head(self, head: ResponseHead) -> None:
        self._begun = True
        self._responder.start(head.status, head.headers, CHUNKED)

    def on_data(self, data: bytes) -> None:
        assert self._stream is not None
        self._responder.write(data)
        self._stream.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        self._over = True
        self._responder.end()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        self._over = True
        self._responder.abort()


@asynccontextmanager
async def gateway_front(folder: Path, engine: str, **settings: Any) -> AsyncIterator[GatewayFront]:
    """Run a bridge and the server in front of it."""
    front = GatewayFront(folder, engine, **settings)
    server = HttpServer(front)
    front.port = await server.listen_tcp("127.0.0.1", 0)
    try:
        await front.start()
        yield front
    finally:
        try:
            await server.close(0.1)
        finally:
            await front.stop()
