"""The dialling side: keeps one session alive over one WebSocket after another."""

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from picows import WSCloseCode, WSError, WSHandshakeError

from cloudtolocalllm.link.stream import Acceptor
from cloudtolocalllm.link.tunnel import Tunnel
from cloudtolocalllm.link.wire import WebSocketWire, client_protocol
from cloudtolocalllm.runtime.backoff import Backoff
from cloudtolocalllm.tunnel import (
    DEFAULT_LIMITS,
    SESSION_ID_BYTES,
    SUBPROTOCOL,
    GoAwayReason,
    Limits,
    ResetReason,
    Role,
    Session,
)

log = logging.getLogger(__name__)

FIRST_RETRY = 0.05
"""Upper bound in seconds of the wait after a connection that worked was lost: enough to spread many bridges."""


class RefusedError(Exception):
    """The server refuses this bridge in a way that dialling again cannot mend."""

    def __init__(self, status: int) -> None:
        super().__init__(f"expected the upgrade to be accepted, got status {status}; pair this bridge again")
        self.status = status


@dataclass(frozen=True, slots=True)
class DialTarget:
    """Where and as whom to dial."""

    url: str
    """ws:// or wss:// URL."""
    headers: Mapping[str, str]
    """Extra fields of the upgrade request, such as Authorization."""
    may_retry: Callable[[Mapping[str, str]], bool] | None = None
    """Given the fields of a 401, tells whether dialling at once with a new target may help; asked once a dial."""


class TunnelClient:
    """One session, dialled and dialled again with jittered backoff until it is closed."""

    def __init__(
        self,
        target: Callable[[], Awaitable[DialTarget]],
        acceptor: Acceptor,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a client that is not connected.

        Args:
            target: Asked before each attempt, so that credentials can be renewed.
            acceptor: Called for each stream that the proxy opens.
            limits: None for the defaults.
            tls: For wss:// URLs; None for the system's trust store.
        """
        self._target = target
        self._acceptor = acceptor
        self._limits = limits or DEFAULT_LIMITS
        self._tls = tls
        self._rng = random.SystemRandom()
        self._tunnel: Tunnel | None = None
        self._wake = asyncio.Event()
        self._lost = False
        self._greeted = False
        self._finished = False

    @property
    def tunnel(self) -> Tunnel:
        """The session in use; a new one after a session was lost. Needs a running event loop."""
        if self._tunnel is None:
            session = Session(Role.BRIDGE, secrets.token_bytes(SESSION_ID_BYTES), limits=self._limits)
            self._tunnel = Tunnel(session, self, self._acceptor)
        return self._tunnel

    async def run(self) -> None:
        """Connect and reconnect until cancelled, or the proxy is done with us and streams ended.

        It is done when it sends GOAWAY with IDLE, SHUTDOWN or REVOKED. When cancelled, open streams are reset at
        both sides and the session is over: a bridge that wants to finish them calls `close` first.

        Raises:
            RefusedError: The server refuses us in a way that dialling again cannot mend (401, 403).
        """
        backoff = Backoff(rng=self._rng)
        try:
            while True:
                self._greeted = False
                await self._one_connection()
                if self._finished:
                    return
                if self._greeted:
                    backoff.reset()
                    await self._pause(self._rng.uniform(0, FIRST_RETRY))
                else:
                    await self._pause(backoff.next())
        finally:
            self._end()

    async def close(self, reason: GoAwayReason = GoAwayReason.SHUTDOWN, grace: float = 5.0) -> None:
        """Take no more streams, wait up to `grace` seconds for those that run; `run` then returns."""
        tunnel = self.tunnel
        tunnel.go_away(reason)
        try:
            async with asyncio.timeout(grace):
                while tunnel.open_streams and not tunnel.ended and not self._finished:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            log.info("streams were still open at the end of the grace time")
        self._finished = True
        self._wake.set()

    # --- connections ----------------------------------------------------------------------------------------

    async def _one_connection(self) -> None:
        wire = await self._dial()
        if wire is None:
            return
        if self._finished:  # closed while dialling: the proxy need not hear of it
            wire.abort()
            return
        self._lost = False
        self.tunnel.attach(wire)
        while not self._lost and not self._finished:
            self._wake.clear()
            await self._wake.wait()

    async def _pause(self, delay: float) -> None:
        """Wait, but not longer than the session is wanted."""
        try:
            async with asyncio.timeout(delay):
                while not self._finished:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass

    async def _dial(self) -> WebSocketWire | None:
        target = await self._target()
        try:
            try:
                return await self._connect(target)
            except WSHandshakeError as error:
                if not _may_retry(target, error):
                    raise
            return await self._connect(await self._target())
        except WSHandshakeError as error:
            status = 0 if error.response is None else int(error.response.status)
            if status in (401, 403):
                raise RefusedError(status) from None
            log.info("the tunnel's upgrade was refused", extra={"status": status})
        except (OSError, TimeoutError, WSError) as error:
            log.info("the tunnel could not connect", extra={"fault": type(error).__name__})
        return None

    async def _connect(self, target: DialTarget) -> WebSocketWire | None:
        url = urlsplit(target.url)
        if url.scheme not in ("ws", "wss") or url.hostname is None:
            raise ValueError("expected a ws:// or wss:// URL to dial")
        secure = url.scheme == "wss"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = [*target.headers.items(), ("Sec-WebSocket-Protocol", SUBPROTOCOL)]
        timeout = self._limits.handshake_timeout
        wire = WebSocketWire(None)
        netloc = url.netloc.rpartition("@")[2]
        async with asyncio.timeout(timeout):
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: client_protocol(netloc, path, wire, headers, timeout),
                url.hostname,
                url.port or (443 if secure else 80),
                ssl=(self._tls or True) if secure else None,
            )
            try:
                await protocol.wait_until_handshake_complete()
            except BaseException:
                transport.abort()
                raise
        response = None if protocol.transport is None else protocol.transport.response
        if response is None or transport.is_closing():
            transport.abort()
            return None
        if response.headers.get("sec-websocket-protocol") != SUBPROTOCOL:
            log.warning("the server does not speak the tunnel's subprotocol", extra={"expected": SUBPROTOCOL})
            transport.abort()
            return None
        return wire

    # --- what the tunnel tells ------------------------------------------------------------------------------

    def tunnel_attached(self, tunnel: Tunnel, resumed: bool) -> None:
        """HELLO was exchanged."""
        self._greeted = True
        log.info("tunnel attached", extra={"resumed": resumed, "epoch": tunnel.epoch})

    def tunnel_detached(self, tunnel: Tunnel) -> None:
        """Dial again."""
        self._lost = True
        self._wake.set()

    def tunnel_drained(self, tunnel: Tunnel) -> None:
        """Nothing is left to do for a proxy that goes away."""
        if tunnel.going_away in (GoAwayReason.IDLE, GoAwayReason.SHUTDOWN, GoAwayReason.REVOKED):
            self._finished = True
        self._wake.set()

    def tunnel_ended(self, tunnel: Tunnel, detail: str) -> None:
        """Make a new session at the next dial."""
        log.info("session ended", extra={"cause": detail})
        if self._tunnel is tunnel:
            self._tunnel = None
        if tunnel.going_away in (GoAwayReason.IDLE, GoAwayReason.SHUTDOWN, GoAwayReason.REVOKED):
            self._finished = True
        self._wake.set()

    def _end(self) -> None:
        tunnel = self._tunnel
        self._finished = True
        if tunnel is not None and not tunnel.ended:
            tunnel.reset_streams(ResetReason.INTERNAL, "the bridge stops")
            tunnel.end("the bridge stops", WSCloseCode.OK)


def _may_retry(target: DialTarget, error: WSHandshakeError) -> bool:
    response = error.response
    if target.may_retry is None or response is None or int(response.status) != 401:
        return False
    return target.may_retry({name.lower(): str(text) for name, text in response.headers.items()})
