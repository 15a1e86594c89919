"""The accepting side: WebSockets come in, sessions are found or made by the session id in HELLO."""

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus

from picows import WSCloseCode, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from cloudtolocalllm.link.tunnel import Tunnel
from cloudtolocalllm.link.wire import WebSocketWire, Wire, hand_over, server_protocol
from cloudtolocalllm.tunnel import (
    DEFAULT_LIMITS,
    SUBPROTOCOL,
    GoAwayReason,
    Limits,
    RemoteError,
    ResetReason,
    Role,
    Session,
    peek_hello,
)
from cloudtolocalllm.tunnel.errors import VersionError
from cloudtolocalllm.tunnel.frames import encode_goaway

log = logging.getLogger(__name__)

_OPTIONS = re.compile(rb"\r\nconnection:[^\r\n]*\bupgrade\b[^\r\n]*\r\n", re.IGNORECASE)
"""A Connection field that lists Upgrade among other options, as RFC 9110 §7.8 allows and picows does not."""

WEBSOCKET_VERSION = "13"
_VERSION = [("Sec-WebSocket-Version", WEBSOCKET_VERSION)]
"""RFC 6455 §4.4: told to a client that speaks another version; picows does not look at it."""
MAX_SESSIONS = 64
"""Sessions at once: a user has a few bridges, each with one session and for a minute perhaps an old one."""
MAX_ARRIVALS = 64
"""WebSockets at once that have not sent HELLO."""


class TunnelServer:
    """Sessions by bridge, each resumable within its window; a session belongs to the bridge that made it."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        on_tunnel: Callable[[str, Tunnel], None] | None = None,
        on_tunnel_ended: Callable[[str, Tunnel], None] | None = None,
        on_attached: Callable[[str, Tunnel], None] | None = None,
    ) -> None:
        """Make a server with no session.

        Args:
            limits: None for the defaults.
            on_tunnel: Called with the bridge's id when a session is first attached.
            on_tunnel_ended: Called when a session is over for good.
            on_attached: Called whenever a session is attached, the first time and after each reconnect.
        """
        self._limits = limits or DEFAULT_LIMITS
        self._on_tunnel = on_tunnel
        self._on_tunnel_ended = on_tunnel_ended
        self._on_attached = on_attached
        self._keepers: dict[tuple[str, bytes], _Keeper] = {}
        self._arrivals: set[_Arrival] = set()
        self._closing: asyncio.Event | None = None

    def take_over(self, transport: asyncio.Transport, request: bytes, bridge_id: str) -> None:
        """Make a WebSocket of an HTTP connection whose upgrade request was already read and authorised.

        Args:
            transport: The connection; its protocol is replaced.
            request: The bytes of the request head as received, up to and including the empty line, and any
                bytes that came after it.
            bridge_id: Who the authenticated peer is.
        """
        if transport.is_closing():
            return
        arrival = _Arrival(self, bridge_id, transport, self._limits.handshake_timeout)
        self._arrivals.add(arrival)
        hand_over(
            transport, server_protocol(arrival.accept), _OPTIONS.sub(b"\r\nConnection: Upgrade\r\n", request, 1)
        )

    def tunnels(self, bridge_id: str | None = None) -> list[Tunnel]:
        """Return the sessions that are not over, attached or resumable, of one bridge or of all; newest first."""
        return [
            keeper.tunnel
            for (bridge, _), keeper in reversed(self._keepers.items())
            if keeper.known and (bridge_id is None or bridge == bridge_id)
        ]

    def attached_bridges(self) -> list[str]:
        """Return the ids of the bridges that have a live WebSocket now."""
        return sorted({bridge for (bridge, _), keeper in self._keepers.items() if keeper.tunnel.attached})

    def cut(self, bridge_id: str, reason: GoAwayReason, detail: str) -> int:
        """End a bridge's sessions now, and whatever runs in them; return how many there were."""
        for arrival in [arrival for arrival in self._arrivals if arrival.bridge_id == bridge_id]:
            arrival.expire()
        keepers = [keeper for (bridge, _), keeper in self._keepers.items() if bridge == bridge_id]
        for keeper in keepers:
            keeper.tunnel.go_away(reason)
            keeper.tunnel.reset_streams(ResetReason.CANCELLED, detail)
            keeper.tunnel.end(detail, WSCloseCode.POLICY_VIOLATION)
        return len(keepers)

    def detach(self, bridge_id: str) -> None:
        """Drop a bridge's WebSockets; its sessions wait for it within the resume window."""
        for arrival in [arrival for arrival in self._arrivals if arrival.bridge_id == bridge_id]:
            arrival.expire()
        for keeper in [keeper for (bridge, _), keeper in self._keepers.items() if bridge == bridge_id]:
            keeper.tunnel.detach()

    async def close(self, reason: GoAwayReason, grace: float) -> None:
        """Send GOAWAY, wait up to `grace` seconds for open streams, then end every session."""
        self._closing = asyncio.Event()
        for arrival in list(self._arrivals):
            arrival.expire()
        for keeper in list(self._keepers.values()):
            keeper.tunnel.go_away(reason)
        try:
            async with asyncio.timeout(grace):
                while any(keeper.tunnel.open_streams for keeper in self._keepers.values()):
                    self._closing.clear()
                    await self._closing.wait()
        except TimeoutError:
            log.info("streams were still open at the end of the grace time")
        for keeper in list(self._keepers.values()):
            keeper.tunnel.reset_streams(ResetReason.CANCELLED, "the proxy stops")
            keeper.tunnel.end("the proxy stops")
        await asyncio.sleep(0)  # lets the transports write

    # --- for arrivals and keepers ---------------------------------------------------------------------------

    def full(self) -> bool:
        """Return whether another WebSocket would be one too many (or the server is closing)."""
        return self._closing is not None or len(self._arrivals) > MAX_ARRIVALS

    def left(self, arrival: "_Arrival") -> None:
        """An arrival has become a tunnel, or nothing."""
        self._arrivals.discard(arrival)

    def arrived(self, bridge_id: str, wire: Wire, message: bytes) -> None:
        """Give a WebSocket to the session that its HELLO names."""
        try:
            hello = peek_hello(message)
        except RemoteError as error:
            log.warning("a bridge's first message is not HELLO", extra={"bridge": bridge_id, "fault": str(error)})
            if isinstance(error, VersionError):
                wire.send(encode_goaway(GoAwayReason.VERSION))
            wire.close(WSCloseCode.PROTOCOL_ERROR)
            return
        # The bridge's id is part of the key: another bridge that learnt a session id gets a session of its own.
        key = (bridge_id, hello.session_id)
        keeper = self._keepers.get(key)
        if keeper is None:
            if len(self._keepers) >= MAX_SESSIONS:
                wire.send(encode_goaway(GoAwayReason.OVERLOADED))
                wire.close(WSCloseCode.TRY_AGAIN_LATER)
                return
            keeper = self._keepers[key] = _Keeper(self, key, self._limits)
        elif hello.epoch <= keeper.tunnel.epoch:
            # Checked before attaching, so that a connection that was overtaken on its way cannot replace the newer.
            log.info("refused a connection with an old epoch", extra={"bridge": bridge_id})
            wire.send(encode_goaway(GoAwayReason.EPOCH_FENCED))
            wire.close(WSCloseCode.POLICY_VIOLATION)
            return
        keeper.tunnel.attach(wire, message)

    def attached(self, bridge_id: str, tunnel: Tunnel, first: bool) -> None:
        """A session came (back) to life."""
        log.info("bridge attached", extra={"bridge": bridge_id, "first": first, "epoch": tunnel.epoch})
        if first and self._on_tunnel is not None:
            self._on_tunnel(bridge_id, tunnel)
        if self._on_attached is not None:
            self._on_attached(bridge_id, tunnel)

    def drained(self) -> None:
        """A session that goes away has no stream left."""
        if self._closing is not None:
            self._closing.set()

    def ended(self, key: tuple[str, bytes], tunnel: Tunnel, known: bool, detail: str) -> None:
        """A session is over."""
        self._keepers.pop(key, None)
        self.drained()
        log.info("session ended", extra={"bridge": key[0], "cause": detail})
        if known and self._on_tunnel_ended is not None:
            self._on_tunnel_ended(key[0], tunnel)


class _Arrival:
    """A WebSocket from its upgrade to its HELLO."""

    def __init__(self, server: TunnelServer, bridge_id: str, transport: asyncio.Transport, timeout: float) -> None:
        self._server = server
        self.bridge_id = bridge_id
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(timeout, self.expire)

    def accept(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answer the upgrade request."""
        offered = ",".join(request.headers.getall("sec-websocket-protocol", [])).split(",")
        if self._server.full():
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections")
        if request.headers.get("sec-websocket-version") != WEBSOCKET_VERSION:
            return self._refuse(HTTPStatus.UPGRADE_REQUIRED, b"expected version 13", _VERSION)
        if SUBPROTOCOL not in (name.strip() for name in offered):
            return self._refuse(HTTPStatus.BAD_REQUEST, f"expected subprotocol {SUBPROTOCOL}".encode())
        response = WSUpgradeResponse.create_101_response([("Sec-WebSocket-Protocol", SUBPROTOCOL)])
        return WSUpgradeResponseWithListener(response, WebSocketWire(self))

    def expire(self) -> None:
        """HELLO did not come in time."""
        self._leave()
        self._transport.abort()

    def wire_message(self, wire: Wire, message: bytes, last: bool) -> None:
        """Take the first message: HELLO."""
        self._leave()
        wire.owner = None
        self._server.arrived(self.bridge_id, wire, message)

    def wire_writable(self, wire: Wire) -> None:
        """Nothing was sent yet."""

    def wire_lost(self, wire: Wire) -> None:
        """The bridge went before HELLO."""
        self._leave()

    def _refuse(
        self, status: HTTPStatus, text: bytes, fields: list[tuple[str, str]] | None = None
    ) -> WSUpgradeResponseWithListener:
        # The deadline stays until the connection is closed, in case the peer does not read the answer.
        self._server.left(self)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, text, fields), None)

    def _leave(self) -> None:
        self._timer.cancel()
        self._server.left(self)


class _Keeper:
    """Keeps one session for the server."""

    def __init__(self, server: TunnelServer, key: tuple[str, bytes], limits: Limits) -> None:
        self._server = server
        self._key = key
        self.known = False
        """Whether it was attached once; before, it is nobody's."""
        self.tunnel = Tunnel(Session(Role.PROXY, key[1], limits=limits), self)

    def tunnel_attached(self, tunnel: Tunnel, resumed: bool) -> None:
        """HELLO was exchanged."""
        first, self.known = not self.known, True
        self._server.attached(self._key[0], tunnel, first)

    def tunnel_detached(self, tunnel: Tunnel) -> None:
        """The session waits for its bridge."""
        log.info("bridge detached", extra={"bridge": self._key[0], "streams": tunnel.open_streams})

    def tunnel_drained(self, tunnel: Tunnel) -> None:
        """No stream is open any more."""
        self._server.drained()

    def tunnel_ended(self, tunnel: Tunnel, detail: str) -> None:
        """The session is over."""
        self._server.ended(self._key, tunnel, self.known, detail)
