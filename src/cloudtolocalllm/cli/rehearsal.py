"""A proxy's life in short, played in the fork server before the first fork.

The interpreter rewrites code that has run a few times for the types it met (PEP 659), and fills caches: into shared
pages when it happens here, into each child's own when it happens there.
"""

import asyncio
import contextlib
import dataclasses
import functools
import os
import secrets
import tempfile
from collections.abc import Callable
from typing import Any

from cloudtolocalllm.auth.assertion import BRIDGE, CLIENT, KEY, Assertion, Limits, manager_token, mint
from cloudtolocalllm.contracts.authorize import ASSERTION, TUNNEL_TARGET
from cloudtolocalllm.link import Stream, StreamHandler, Tunnel
from cloudtolocalllm.link.wire import WebSocketWire, client_protocol, hand_over
from cloudtolocalllm.proxy import service
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.runtime import forkserver, lifecycle, processes
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.http1 import HttpError, Pool, fetch
from cloudtolocalllm.tunnel import (
    SESSION_ID_BYTES,
    SUBPROTOCOL,
    Headers,
    RequestHead,
    ResetReason,
    ResponseHead,
    Role,
    Session,
)

LIVES = 10
"""More than the eight runs after which code is rewritten."""
TOKENS = 4
TIMEOUT = 10.0
"""Seconds, on a machine that is busy starting."""
_LIMITS = Limits(10**6, 10**6, 10**12)
_BRIDGE_ID = "br-rehearsal"
_TOKEN = b'{"model":"m","message":{"role":"assistant","content":" a"},"done":false}\n'


def rehearse(settings_of: Callable[[dict[str, Any]], ProxySettings]) -> None:
    """Run a proxy, its bridge and its clients in this process for some ten milliseconds.

    Args:
        settings_of: Makes the proxy's settings of what the manager would say.

    Raises:
        ExceptionGroup: Of HttpError, OSError and TimeoutError.
    """
    with tempfile.TemporaryDirectory(prefix="c2l-") as folder:
        args = {
            "instance": "px-rehearsal",
            "key": secrets.token_hex(32),
            "listen": f"unix:{folder}/http.sock",
            "attach_timeout": 0.1,
            "drain": 0.1,
            "orphan_timeout": TIMEOUT,
        }
        forkserver.write_record(f"{folder}/record", {"pid": 1, "started": processes.start_time(os.getpid())})
        settings = settings_of(args)
        lifecycle.run(functools.partial(_live, settings))


async def _live(settings: ProxySettings, stop: asyncio.Event) -> None:
    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
        group.create_task(service.serve(settings, stop))
        try:
            await _play(settings)
        finally:
            stop.set()


async def _play(settings: ProxySettings) -> None:
    await asyncio.sleep(0)
    manager = (b"authorization", b"Bearer " + manager_token(settings.key).encode())
    pool = Pool(str(settings.listen), max_idle=1)
    bridge = _Bridge()
    for target in ("/healthz", "/stats"):
        single = Pool(str(settings.listen), max_idle=0)
        await fetch(single, "GET", target, (manager,), timeout=1.0)
        await single.close()
    async with asyncio.TaskGroup() as group:  # as when a request starts the proxy: it is there before the bridge
        group.create_task(_ask(pool, settings))
        await asyncio.sleep(0.001)
        await bridge.attach(settings)
    await _ask(pool, settings)
    await _ask(pool, settings, max_content=2 * len(_TOKEN))  # leaves in the middle
    bridge.reset = True
    await _ask(pool, settings)
    await pool.close()
    bridge.leave()


async def _ask(pool: Pool, settings: ProxySettings, *, max_content: int = 1 << 20) -> None:
    headers = (
        (ASSERTION, _assertion(settings, CLIENT).encode()),
        (b"user-agent", b"rehearsal"),
        (b"accept", b"*/*"),
        (b"content-type", b"application/json"),
    )
    with contextlib.suppress(HttpError):
        await fetch(pool, "POST", "/ollama/api/chat", headers, _TOKEN, timeout=1.0, max_content=max_content)


def _assertion(settings: ProxySettings, kind: str) -> str:
    now = int(SystemClock().wall())
    claims = Assertion(settings.instance, "u", kind, _BRIDGE_ID, now, now + 60, (), "rq", until=now + 3600)
    if kind == CLIENT:  # with all that a real one carries: what is not rehearsed, each proxy pays for by itself
        claims = dataclasses.replace(
            claims, bridges=(_BRIDGE_ID,), via=KEY, key_requests_per_minute=10**6, scope="{}", limits=_LIMITS
        )
    return mint(claims, settings.key)


class _Bridge:
    """The dialling side of one session (a `TunnelOwner`)."""

    def __init__(self) -> None:
        self._tunnel = Tunnel(Session(Role.BRIDGE, secrets.token_bytes(SESSION_ID_BYTES)), self, self._accept)
        self._attached = asyncio.Event()
        self.reset = False

    async def attach(self, settings: ProxySettings) -> None:
        """Dial, once more if need be."""
        wire = WebSocketWire(None)
        headers = [(ASSERTION.decode(), _assertion(settings, BRIDGE)), ("Sec-WebSocket-Protocol", SUBPROTOCOL)]
        protocol = client_protocol("localhost", TUNNEL_TARGET, wire, headers, 1.0)
        transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, settings.listen.path)
        hand_over(transport, protocol, b"")
        await protocol.wait_until_handshake_complete()
        self._attached.clear()
        self._tunnel.attach(wire)
        await self._attached.wait()

    def leave(self) -> None:
        self._tunnel.end("the rehearsal is over")

    def tunnel_attached(self, tunnel: Tunnel, resumed: bool) -> None:
        self._attached.set()

    def tunnel_detached(self, tunnel: Tunnel) -> None:
        pass

    def tunnel_drained(self, tunnel: Tunnel) -> None:
        pass

    def tunnel_ended(self, tunnel: Tunnel, detail: str) -> None:
        pass

    def _accept(self, head: RequestHead, stream: Stream) -> StreamHandler:
        return _Answer(stream, self.reset)


class _Answer:
    """Answers one stream, a token a turn of the loop."""

    def __init__(self, stream: Stream, reset: bool) -> None:
        self._stream = stream
        self._left = TOKENS
        self._reset = reset
        self._over = False

    def on_head(self, head: ResponseHead) -> None:
        pass

    def on_data(self, data: bytes) -> None:
        self._stream.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        self._stream.send_head(ResponseHead(200, ((b"content-type", b"application/x-ndjson"),)))
        self._next()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        self._over = True

    def on_writable(self) -> None:
        pass

    def _next(self) -> None:
        if self._over:
            return
        self._left -= 1
        if self._left > 0:
            self._stream.send_data(_TOKEN)
            asyncio.get_running_loop().call_later(0.0005, self._next)
        elif self._reset:
            self._stream.reset(ResetReason.ENGINE_ERROR)
        else:
            self._stream.end()
