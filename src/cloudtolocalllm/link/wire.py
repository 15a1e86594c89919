"""One WebSocket as a tunnel uses it: whole binary messages in and out, on either side.

Text and fragmented messages are refused with 1003: both sides of the protocol send every message as one frame, so
there is nothing to reassemble and no memory to bound. A frame over MAX_MESSAGE is refused with 1009 by picows before
its payload is read.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined] # left out of the package's type stubs

MAX_MESSAGE = 1024 * 1024
"""Bytes of a message that is accepted. Senders stay near MESSAGE_BYTES; other implementations may not."""
MESSAGE_BYTES = 64 * 1024
"""Bytes at which a message is sent rather than grown: keeps the peer's read buffer small (it never shrinks)."""
HIGH_WATER = 128 * 1024
"""Bytes in the transport's buffer above which nothing more is taken from the session."""
LOW_WATER = 32 * 1024
CLOSE_TIMEOUT = 1.0
"""Seconds that the peer has to answer our CLOSE before the connection is aborted."""
READ_BUFFER = 16 * 1024

_BINARY = WSMsgType.BINARY
_NEVER_SENT = frozenset({b"\x00\x00", b"\x03\xee"})
"""Codes that stand for "none" inside a program (0, 1006) and which picows lets pass; RFC 6455 §7.4.1 bars them."""

_logger = logging.getLogger(__name__ + ".picows")
# picows tells of each connection at INFO, with socket options; the services log their own canonical line.
_logger.setLevel(logging.WARNING)


class WireOwner(Protocol):
    """Who is told what happens on a wire: first whoever waits for HELLO, then the tunnel."""

    def wire_message(self, wire: "Wire", message: bytes, last: bool) -> None:
        """A binary message came; `last` when no further one was read with it."""

    def wire_writable(self, wire: "Wire") -> None:
        """The transport's buffer fell below its low-water mark."""

    def wire_lost(self, wire: "Wire") -> None:
        """The connection is gone; nothing more is called."""


class Wire(Protocol):
    """A connection that carries messages; the tests have one in memory."""

    owner: WireOwner | None
    """None once nobody listens any more."""
    paused: bool
    """Whether the transport's buffer is over its high-water mark."""

    def send(self, message: bytes) -> bool:
        """Send a binary message; return whether more may follow (False when the transport's buffer is full)."""
        ...

    def buffered(self) -> int:
        """Return the bytes that the transport holds."""
        ...

    def close(self, code: WSCloseCode) -> None:
        """Say goodbye and close; the owner hears nothing more."""

    def abort(self) -> None:
        """Drop the connection at once; the owner hears nothing more."""


class WebSocketWire(WSListener):
    """A wire over picows."""

    def __init__(self, owner: WireOwner | None) -> None:
        super().__init__()
        self.owner = owner
        self.paused = False
        self._transport: WSTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # --- what the owner calls -------------------------------------------------------------------------------

    def send(self, message: bytes) -> bool:
        """Send a binary message."""
        if self._transport is not None:
            self._transport.send(_BINARY, message)
        return not self.paused

    def buffered(self) -> int:
        """Return the bytes that the transport holds."""
        return 0 if self._transport is None else self._transport.underlying_transport.get_write_buffer_size()

    def close(self, code: WSCloseCode) -> None:
        """Send CLOSE and wait for the peer's, at most CLOSE_TIMEOUT."""
        self.owner = None
        transport = self._transport
        if transport is None or self._deadline is not None:
            return
        # Closing the socket at once could reset the connection and take the CLOSE from the peer's buffer.
        transport.send_close(code)
        self._deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Drop the connection at once."""
        self.owner = None
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # --- what picows calls ----------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Take the transport."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand a binary message on; answer control frames; refuse the rest."""
        kind = frame.msg_type
        owner = self.owner
        if kind is _BINARY and frame.fin and owner is not None and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            owner.wire_message(self, frame.get_payload_as_bytes(), frame.last_in_buffer)
            return
        self._other_frame(transport, frame, kind)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Tell the owner."""
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.wire_lost(self)

    def pause_writing(self) -> None:
        """Note that the transport's buffer is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """Tell the owner that it may go on."""
        self.paused = False
        if self.owner is not None:
            self.owner.wire_writable(self)

    def _other_frame(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        faulty = frame.rsv1 or frame.rsv2 or frame.rsv3  # no extension was agreed on that would use them (§5.2)
        if kind is WSMsgType.CLOSE:
            faulty = faulty or frame.get_payload_as_bytes()[:2] in _NEVER_SENT
            transport.send_close(WSCloseCode.PROTOCOL_ERROR if faulty else WSCloseCode.OK)
            transport.disconnect()
        elif self.owner is None:
            pass  # closing: what still comes is dropped
        elif faulty or kind is WSMsgType.CONTINUATION:
            # A continuation continues nothing here: the first fragment of a message was refused.
            self._refuse(WSCloseCode.PROTOCOL_ERROR)
        elif kind is WSMsgType.PONG:
            pass
        elif kind is WSMsgType.PING:
            if not self.paused:  # a peer that pings and never reads must not fill our buffer with answers
                transport.send_pong(frame.get_payload_as_bytes())
        else:
            self._refuse(WSCloseCode.UNSUPPORTED_DATA)

    def _refuse(self, code: WSCloseCode) -> None:
        owner = self.owner
        self.close(code)
        if owner is not None:
            owner.wire_lost(self)


def server_protocol(
    accept: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener],
) -> asyncio.BufferedProtocol:
    """Return a protocol that takes an upgrade request and then carries a WebSocket."""
    protocol: asyncio.BufferedProtocol = _protocol(None, None, False, accept, None, None)
    return protocol


def client_protocol(
    netloc: str, target: str, wire: WebSocketWire, headers: list[tuple[str, str]], timeout: float
) -> Any:
    """Return a protocol that sends an upgrade request; `wait_until_handshake_complete()` tells how it went."""

    def listener(request: WSUpgradeRequest, response: WSUpgradeResponse) -> WSListener:
        return wire

    return _protocol(netloc, target, True, listener, headers, timeout)


def _protocol(
    netloc: str | None,
    target: str | None,
    client: bool,
    factory: Callable[..., Any],
    headers: list[tuple[str, str]] | None,
    timeout: float | None,
) -> Any:
    return WSProtocol(
        netloc,
        target,
        client,
        factory,
        _logger,
        True,  # disconnect_on_exception
        timeout,  # for the handshake
        False,  # enable_auto_ping: the session has its own, which also tells that the peer's session is alive
        20,
        20,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong: answered in on_ws_frame, which looks at the buffer
        MAX_MESSAGE,
        headers,
        READ_BUFFER,
    )


class _AnySocket:
    """A socket of any family where picows asks for TCP's options."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def setsockopt(self, *_: Any) -> None:
        """Do nothing: asyncio and uvloop set TCP_NODELAY themselves, a Unix socket has no such option."""

    def getsockopt(self, *_: Any) -> int:
        return 0


class _AnyTransport:
    """A transport, as picows uses it, over a socket of any family."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = transport.write
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.set_write_buffer_limits = transport.set_write_buffer_limits
        self.close = transport.close
        self.abort = transport.abort

    def writelines(self, pieces: list[Any]) -> None:
        """Write a frame's header and payload.

        The header is a view of a buffer that picows uses again for its next frame, and uvloop keeps what it is given
        until the end of its turn: of two frames in one turn the first would leave with the second one's header.
        """
        header, *rest = pieces
        self._transport.writelines([bytes(header), *rest])

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows, with a socket that bears TCP options."""
        value = self._transport.get_extra_info(name, default)
        return _AnySocket(value) if name == "socket" else value


def hand_over(transport: asyncio.Transport, protocol: asyncio.BufferedProtocol, received: bytes) -> None:
    """Let `protocol` go on with a connection of which `received` was read already."""
    transport.set_protocol(protocol)
    protocol.connection_made(_AnyTransport(transport))  # type: ignore[arg-type] # as much of one as picows uses
    at = 0
    while at < len(received):
        buffer = memoryview(protocol.get_buffer(-1)).cast("B")
        size = min(len(buffer), len(received) - at)
        buffer[:size] = received[at : at + size]
        buffer.release()
        protocol.buffer_updated(size)
        at += size
    if not transport.is_closing():
        transport.resume_reading()
