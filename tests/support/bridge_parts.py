"""A bridge at the end of a real tunnel, and a proxy's end of it to ask it through."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.link_parts import Recorder, listen, until

from cloudtolocalllm.auth.dpop import ProofKey
from cloudtolocalllm.bridge.identity import BridgeIdentity
from cloudtolocalllm.bridge.service import Bridge
from cloudtolocalllm.bridge.settings import BridgeSettings
from cloudtolocalllm.link import Tunnel, TunnelServer
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.tunnel import GoAwayReason, Limits, RequestHead, ResetReason

JSON = (b"content-type", b"application/json")


class Ask(Recorder):
    """One request to the bridge and what comes back."""

    @property
    def status(self) -> int:
        return self.heads[-1].status if self.heads else 0

    def field(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.heads[-1].headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def problem(self) -> str:
        return str(self.json["type"]).removeprefix("urn:c2l:problem:")

    async def finished(self, seconds: float = 10.0) -> "Ask":
        async with asyncio.timeout(seconds):
            await self.done.wait()
        return self

    async def headed(self) -> "Ask":
        await until(lambda: bool(self.heads))
        return self

    def cancel(self, reason: ResetReason = ResetReason.CANCELLED) -> None:
        assert self.stream is not None
        self.stream.reset(reason)


class Home:
    """A bridge, its tunnel, and the proxy's end."""

    def __init__(self, bridge: Bridge, server: TunnelServer) -> None:
        self.bridge = bridge
        self.server = server

    @property
    def tunnel(self) -> Tunnel:
        return self.server.tunnels()[-1]

    def ask(
        self,
        method: str,
        target: str,
        value: Any = None,
        *fields: tuple[bytes, bytes],
        content: bytes | None = None,
        end: bool = True,
        granting: bool = True,
    ) -> Ask:
        """Open a stream; `value` is sent as JSON, or `content` as it is."""
        if content is None:
            content = b"" if value is None else json.dumps(value).encode()
        headers = fields if any(name == b"content-length" for name, _ in fields) else (
            *fields, *([(b"content-length", str(len(content)).encode())] if content else ())
        )  # fmt: skip
        ask = Ask(granting=granting)
        ask.stream = self.tunnel.open(RequestHead(method, target, (JSON, *headers)), ask)
        if content:
            ask.stream.send_data(content)
        if end:
            ask.stream.end()
        return ask

    async def answer(self, method: str, target: str, value: Any = None, *fields: tuple[bytes, bytes]) -> Ask:
        return await self.ask(method, target, value, *fields).finished()


@asynccontextmanager
async def home(
    tmp_path: Path, *engines: str, limits: Limits | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncGenerator[Home]:
    """Run a bridge to these engines; `clock` instead of the machine's."""
    async with AsyncExitStack() as steps:  # each is ended, whatever becomes of the others
        server = TunnelServer(limits=limits)
        listener, port = await listen(server)
        steps.push_async_callback(listener.wait_closed)
        steps.callback(listener.close)
        steps.push_async_callback(server.close, GoAwayReason.SHUTDOWN, 0.1)
        credential = tmp_path / "credential.json"
        now = time.time()
        url = f"http://127.0.0.1:{port}"
        BridgeIdentity(url, "br-test", "secret", ProofKey.generate(), now, now + 30 * 86_400).save(credential)
        settings.setdefault("drain_grace", 0.1)
        bridge = Bridge(
            BridgeSettings(server=url, credential_file=credential, engines=engines, **settings),
            clock=clock,
        )
        steps.push_async_callback(bridge.close)
        await bridge.start()
        bridge.tunnels.wake("px-0123456789abcdef")
        await until(lambda: bool(server.tunnels()) and server.tunnels()[-1].attached)
        yield Home(bridge, server)
