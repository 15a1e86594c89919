"""The uplink: the control connection that a bridge holds all day.

It carries who we are and how the engines are, and wake-ups: the user's proxy waits for our tunnel.
"""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeResponse,
    ws_connect,
)

from cloudtolocalllm.bridge.identity import PairingError, Prover, error_code
from cloudtolocalllm.contracts.control import (
    DEAD_AFTER,
    HEARTBEAT,
    MAX_MESSAGE,
    SUBPROTOCOL,
    ControlMessageError,
    EngineStatus,
    Hello,
    KeyAdded,
    KeyRevoked,
    Presence,
    Revoked,
    Wake,
    Welcome,
    decode,
    encode,
)
from cloudtolocalllm.runtime.backoff import Backoff

log = logging.getLogger(__name__)

CONTROL_TARGET = "/ws/bridge"
CONNECT_TIMEOUT = 10.0
"""Seconds for the WebSocket, and again for the Welcome."""
PRESENCE_DELAY = 0.1
"""Seconds between two reports of presence at least: the server takes a bounded number."""
REFUSED_WAIT = 60.0
"""Seconds between attempts with a credential that the server refuses: it may have been restored from a backup."""

REVOKED = "the server has revoked this bridge; to use it again, pair it: cloudtolocalllm bridge login"


class RevokedError(Exception):
    """The server says that our credential is void."""


class RefusedError(Exception):
    """The server refuses our credential (401, 403)."""


def websocket_url(server: str, target: str) -> str:
    """Return the ws:// or wss:// URL of a target at the server."""
    parts = urlsplit(server)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}{target}"


class Uplink:
    """Connects, and connects again, until it is cancelled or revoked."""

    def __init__(
        self,
        server: str,
        prover: Prover,
        *,
        name: str,
        version: str,
        statuses: Callable[[], tuple[EngineStatus, ...]],
        on_wake: Callable[[str], None],
        on_welcome: Callable[[], None] | None = None,
        on_key: Callable[[KeyAdded | KeyRevoked], None] | None = None,
        refused_wait: float = REFUSED_WAIT,
    ) -> None:
        """Make an uplink that is not connected.

        Args:
            server: URL of the cloud side.
            prover: Shows who we are, at each attempt anew.
            name: Ours, for people.
            version: Ours.
            statuses: How the engines are.
            on_wake: Called with the instance that waits for our tunnel.
            on_welcome: Called each time the server has taken us.
            on_key: Called with what the server says of API keys.
            refused_wait: Seconds between attempts while the credential is refused.
        """
        self._url = websocket_url(server, CONTROL_TARGET)
        self._prover = prover
        self._name = name
        self._version = version
        self._statuses = statuses
        self._on_wake = on_wake
        self._on_welcome = on_welcome
        self._on_key = on_key
        self._refused_wait = refused_wait
        self._wire: _Wire | None = None
        self._reported: tuple[EngineStatus, ...] = ()
        self._scheduled = False

    @property
    def connected(self) -> bool:
        """Whether the server has taken us."""
        return self._wire is not None and self._wire.welcomed.is_set()

    async def run(self) -> None:
        """Hold the connection.

        Raises:
            RevokedError: The server does not want us any more.
        """
        backoff = Backoff()
        while True:
            try:
                if await self._one_connection():
                    backoff.reset()
            except RefusedError as error:
                log.error(  # noqa: TRY400 - no traceback helps
                    "the server refuses this bridge's credential; pair it again: cloudtolocalllm bridge login",
                    extra={"cause": str(error)},
                )
                await asyncio.sleep(self._refused_wait)
            except PairingError as error:
                log.error("no usable credential", extra={"fault": str(error)})  # noqa: TRY400 - a traceback tells nothing
                await asyncio.sleep(self._refused_wait)
            await asyncio.sleep(backoff.next())

    def presence_changed(self) -> None:
        """Report how the engines are, changes that come close together at once."""
        if not self._scheduled and self.connected:
            self._scheduled = True
            asyncio.get_running_loop().call_later(PRESENCE_DELAY, self._report)

    def _report(self) -> None:
        self._scheduled = False
        statuses = self._statuses()
        if self.connected and self._wire is not None and statuses != self._reported:
            self._reported = statuses
            self._wire.send(encode(Presence(statuses)))

    async def _one_connection(self) -> bool:
        """Connect and stay; return whether the server took us."""
        wire = await self._connect()
        if wire is None:
            return False
        self._wire = wire
        try:
            self._reported = self._statuses()
            wire.send(encode(Hello(self._version, self._name, self._reported)))
            await self._beat(wire)
        except asyncio.CancelledError:
            wire.close(WSCloseCode.GOING_AWAY)  # we end: the cloud need not wait for us to come back
            raise
        finally:
            self._wire = None
            wire.close()
        if wire.revoked:
            raise RevokedError(REVOKED)
        return wire.welcomed.is_set()

    async def _beat(self, wire: "_Wire") -> None:
        """Ping until the connection is over or silent."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not wire.closed.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await wire.closed.wait()
            except TimeoutError:
                wire.ping()
            now = loop.time()
            if now - wire.heard > DEAD_AFTER:
                log.warning("the control connection is silent; connecting again")
                return
            if not wire.welcomed.is_set() and now - began > CONNECT_TIMEOUT:
                log.warning("the server did not welcome us; connecting again")
                return
        log.info("the control connection ended")

    async def _connect(self) -> "_Wire | None":
        wire = _Wire(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                try:
                    transport = await self._dial(wire)
                except WSHandshakeError as error:
                    if _status(error) != 401 or not self._prover.may_retry(_fields(error)):
                        raise
                    transport = await self._dial(wire)
        except WSHandshakeError as error:
            status, code = _status(error), error_code(_fields(error))
            if code == "revoked":
                raise RevokedError(REVOKED) from None
            if status in (401, 403):
                raise RefusedError(code or str(status)) from None
            log.info("the control connection was refused", extra={"status": status})
            return None
        except (OSError, TimeoutError, WSError) as error:
            log.info("the server cannot be reached", extra={"fault": type(error).__name__})
            return None
        response: WSUpgradeResponse | None = (
            transport.response
        )  # None where the connection ended before there was one
        if response is None:
            log.info("the server cannot be reached", extra={"fault": "closed in the handshake"})
            return None
        if response.headers.get("sec-websocket-protocol") != SUBPROTOCOL:
            log.warning("the server does not speak the control protocol", extra={"expected": SUBPROTOCOL})
            wire.close()
            return None
        return wire

    async def _dial(self, wire: "_Wire") -> WSTransport:
        headers = {**self._prover.fields("GET", CONTROL_TARGET), "Sec-WebSocket-Protocol": SUBPROTOCOL}
        transport, _ = await ws_connect(
            lambda: wire,
            self._url,
            websocket_handshake_timeout=CONNECT_TIMEOUT,
            max_frame_size=MAX_MESSAGE * 4,
            extra_headers=headers,
            max_redirects=0,
        )
        return transport

    # --- what the wire tells ------------------------------------------------------------------------------------

    def take(self, wire: "_Wire", text: str) -> None:
        """Take a message."""
        try:
            message = decode(text)
        except ControlMessageError as error:
            log.warning("the server sent an unknown control message", extra={"fault": str(error)})
            return
        match message:
            case Welcome():
                log.info("connected", extra={"bridge": message.bridge_id})
                wire.welcomed.set()
                self._prover.learn(message.nonce)
                self.presence_changed()
                if self._on_welcome is not None:
                    self._on_welcome()
            case Wake():
                self._prover.learn(message.nonce)
                self._on_wake(message.instance)
            case KeyAdded() | KeyRevoked():
                if self._on_key is not None:
                    self._on_key(message)
            case Revoked():
                wire.revoked = True
                wire.close()
            case Hello() | Presence():
                log.warning("the server sent a message that only bridges send")


class _Wire(WSListener):
    """One WebSocket."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self.closed = asyncio.Event()
        self.welcomed = asyncio.Event()
        self.revoked = False
        self.heard = self._loop.time()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.heard = self._loop.time()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard = self._loop.time()
        if frame.msg_type is WSMsgType.TEXT and frame.fin:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self.close()
                return
            self._uplink.take(self, text)
        elif frame.msg_type not in (WSMsgType.PONG, WSMsgType.PING):
            self.close()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self.closed.set()

    def send(self, text: str) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, text.encode())

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.send_ping()

    def close(self, code: WSCloseCode = WSCloseCode.OK) -> None:
        if self._transport is not None:
            self._transport.send_close(code)
            self._transport.disconnect()
            self._transport = None
        self.closed.set()


def _status(error: WSHandshakeError) -> int:
    return 0 if error.response is None else int(error.response.status)


def _fields(error: WSHandshakeError) -> dict[str, str]:
    if error.response is None:
        return {}
    return {name.lower(): str(text) for name, text in error.response.headers.items()}
