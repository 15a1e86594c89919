"""A session joined to whichever WebSocket carries it now.

Everything here is called and calls back on the event loop's thread, without tasks or queues per token: a chunk
costs one pass through the session on each side.
"""

import asyncio
import logging
from typing import Protocol

from picows import WSCloseCode

from cloudtolocalllm.link.stream import Acceptor, Stream, StreamHandler
from cloudtolocalllm.link.wire import HIGH_WATER, MESSAGE_BYTES, Wire
from cloudtolocalllm.tunnel import (
    Attached,
    ConnectionDead,
    DataReceived,
    EndReceived,
    Event,
    GoAwayReason,
    GoAwayReceived,
    LocalError,
    RemoteError,
    RequestHead,
    RequestReceived,
    ResetReason,
    ResponseReceived,
    Session,
    SessionEnded,
    StreamReset,
    Writable,
)

log = logging.getLogger(__name__)


class TunnelOwner(Protocol):
    """Who keeps a tunnel: told of its life, not of its streams."""

    def tunnel_attached(self, tunnel: "Tunnel", resumed: bool) -> None:
        """HELLO was exchanged on a new WebSocket."""

    def tunnel_detached(self, tunnel: "Tunnel") -> None:
        """The WebSocket is gone, whether HELLO was exchanged on it or not."""

    def tunnel_drained(self, tunnel: "Tunnel") -> None:
        """One side is going away and no stream is open; may be told more than once."""

    def tunnel_ended(self, tunnel: "Tunnel", detail: str) -> None:
        """The session is over for good."""


class Tunnel:
    """One session and its present WebSocket. Owned by TunnelServer or TunnelClient."""

    def __init__(self, session: Session, owner: TunnelOwner, acceptor: Acceptor | None = None) -> None:
        """Join a session to no WebSocket yet.

        Args:
            session: Not attached.
            owner: Told of the tunnel's life.
            acceptor: Role BRIDGE: takes new streams. None in role PROXY.
        """
        self._session = session
        self._owner = owner
        self._acceptor = acceptor
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._streams: dict[int, Stream] = {}
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._leaving = False
        self._close_code: WSCloseCode | None = None
        self.going_away: GoAwayReason | None = None
        """Why the peer opens or accepts no more streams, once it has said so."""

    # --- for those who use streams --------------------------------------------------------------------------

    def open(self, head: RequestHead, handler: StreamHandler) -> Stream:
        """Role PROXY: open a stream. Allowed while detached, within the resume window.

        Raises:
            cloudtolocalllm.tunnel.LocalError: Too many streams, going away, or a head over the limit.
        """
        if self._leaving or self.going_away is not None:
            raise LocalError("expected a tunnel that takes new streams, got one that is going away")
        stream_id = self._session.open_stream(head)
        stream = self._streams[stream_id] = Stream(self, self._session, stream_id, handler)
        self.touch()
        return stream

    @property
    def attached(self) -> bool:
        """Whether a live WebSocket carries the session now."""
        return self._session.attached

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        return self._session.ended

    @property
    def open_streams(self) -> int:
        """Streams not yet finished."""
        return self._session.open_streams

    @property
    def epoch(self) -> int:
        """The number of the latest connection, counted by the bridge; 0 before the first."""
        return self._session.epoch

    # --- for the owner of the tunnel ------------------------------------------------------------------------

    def attach(self, wire: Wire, hello: bytes | None = None) -> None:
        """Carry the session on a new WebSocket; the one before is aborted.

        Args:
            wire: Connected.
            hello: Role PROXY: its first message. Role BRIDGE: None; HELLO is sent.
        """
        if self._wire is not None:
            self._wire.abort()
        self._wire = wire
        wire.owner = self
        self._session.attach(self._loop.time())
        if hello is None:
            self._flush()
        else:
            self.wire_message(wire, hello, True)

    def go_away(self, reason: GoAwayReason) -> None:
        """Open and accept no more streams; those that run go on."""
        self._leaving = True
        self._session.go_away(reason)
        self.touch()

    def detach(self) -> None:
        """Drop the WebSocket; the session's resume window begins."""
        if self._wire is not None and not self._session.ended:
            self._connection_dead()
            self._flush()

    def end(self, detail: str, code: WSCloseCode = WSCloseCode.GOING_AWAY) -> None:
        """End the session now; what can be written still is, then the WebSocket is closed."""
        if not self._session.ended:
            self._flush()  # what was queued before, such as resets, must not be lost with the session
            self._session.end(detail)
            self._close_code = code
        self._flush()

    def reset_streams(self, reason: ResetReason, detail: str) -> None:
        """Reset every open stream, at both sides."""
        for stream in list(self._streams.values()):
            stream.reset(reason, detail)
            self._tell_reset(stream, reason, detail)

    # --- for streams ----------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Have what is new sent once this turn of the loop is over."""
        if not self._dirty:
            self._dirty = True
            self._loop.call_soon(self._flush)

    def knows(self, stream_id: int) -> bool:
        """Return whether the stream's handler takes it for open."""
        return stream_id in self._streams

    def forget(self, stream_id: int) -> bool:
        """Drop a stream; return whether it was known."""
        return self._streams.pop(stream_id, None) is not None

    # --- for the wire ---------------------------------------------------------------------------------------

    def wire_message(self, wire: Wire, message: bytes, last: bool) -> None:
        """Take a message through the session and to the handlers."""
        if wire is not self._wire:
            return
        try:
            self._session.receive_data(message, self._loop.time())
        except RemoteError as error:
            log.warning("the peer broke the tunnel's protocol", extra={"fault": str(error)})
            self._close_code = WSCloseCode.PROTOCOL_ERROR
            last = True
        if last:
            self._flush()
        else:
            self._dispatch()
            self.touch()

    def wire_writable(self, wire: Wire) -> None:
        """Go on sending."""
        if wire is self._wire:
            self._flush()

    def wire_lost(self, wire: Wire) -> None:
        """Detach the session; its resume window begins."""
        if wire is not self._wire:
            return
        self._wire = None
        if not self._session.ended:
            if (self._leaving or self.going_away is not None) and not self._session.open_streams:
                self._session.end("gone away")
            else:
                self._session.detach(self._loop.time())
        self._owner.tunnel_detached(self)
        self._flush()

    # --- the pump -------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._dirty = True  # while handlers run: what they send is taken below, without another turn of the loop
        self._dispatch()
        self._dirty = False
        session, wire = self._session, self._wire
        if wire is not None and not wire.paused:
            message = session.data_to_send(MESSAGE_BYTES)
            while message is not None:
                if not wire.send(message):
                    break
                if len(message) >= MESSAGE_BYTES and wire.buffered() > HIGH_WATER:
                    # uvloop pauses a protocol only at the end of its turn: look again in the next one.
                    self.touch()
                    break
                message = session.data_to_send(MESSAGE_BYTES)
        if session.ended:
            self._close()
        elif (self._leaving or self.going_away is not None) and not session.open_streams:
            self._owner.tunnel_drained(self)
        self._arm()

    def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close(self._close_code or WSCloseCode.OK)
            self._owner.tunnel_detached(self)

    def _arm(self) -> None:
        """Keep one timer, at or before the session's next deadline; one that is early finds nothing to do."""
        deadline = self._session.next_deadline()
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._session.tick(self._loop.time())
        self._flush()

    def _dispatch(self) -> None:
        events_received = self._session.events_received
        streams = self._streams
        while events := events_received():
            for event in events:
                if type(event) is DataReceived:
                    stream = streams.get(event.stream_id)
                    if stream is not None:
                        try:
                            stream._handler.on_data(event.data)  # type: ignore[union-attr] # set before any event
                        except Exception as error:
                            self._handler_failed(stream, error)
                else:
                    self._dispatch_rare(event)

    def _dispatch_rare(self, event: Event) -> None:
        match event:
            case Attached():
                self._owner.tunnel_attached(self, event.resumed)
            case RequestReceived():
                self._accept(event)
            case GoAwayReceived():
                self.going_away = event.reason
            case ConnectionDead():
                self._connection_dead()
            case SessionEnded():
                self._session_ended(event)
            case ResponseReceived() | EndReceived() | StreamReset() | Writable():
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    try:
                        self._tell(stream, event)
                    except Exception as error:
                        self._handler_failed(stream, error)

    def _tell(self, stream: Stream, event: ResponseReceived | EndReceived | StreamReset | Writable) -> None:
        handler = stream._handler
        assert handler is not None, "expected a handler before the first event"  # noqa: S101 - set by _accept
        match event:
            case ResponseReceived():
                handler.on_head(event.head)
            case EndReceived():
                stream._peer_half_done = True
                if stream._our_half_done:
                    self.forget(stream.id)
                handler.on_end(event.trailers)
            case StreamReset():
                self.forget(stream.id)
                stream._handler = None
                handler.on_reset(event.reason, event.detail)
            case Writable():
                handler.on_writable()

    def _accept(self, event: RequestReceived) -> None:
        stream = Stream(self, self._session, event.stream_id, None)
        self._streams[stream.id] = stream
        if self._acceptor is None:
            stream.reset(ResetReason.REFUSED)
            return
        try:
            stream._handler = self._acceptor(event.head, stream)
        except Exception as error:
            self._handler_failed(stream, error)

    def _handler_failed(self, stream: Stream, error: Exception) -> None:
        """A handler's exception is a bug: it costs its stream, never the tunnel."""
        log.error("a stream's handler failed", exc_info=error, extra={"stream": stream.id})
        stream.reset(ResetReason.INTERNAL)
        self._tell_reset(stream, ResetReason.INTERNAL, "the handler failed")

    def _tell_reset(self, stream: Stream, reason: ResetReason, detail: str) -> None:
        """Tell a handler that its stream was reset from this side, though not by itself."""
        handler, stream._handler = stream._handler, None
        try:
            if handler is not None:
                handler.on_reset(reason, detail)
        except Exception:
            log.exception("a stream's handler failed", extra={"stream": stream.id})

    def _connection_dead(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        self._session.detach(self._loop.time())
        self._owner.tunnel_detached(self)

    def _session_ended(self, event: SessionEnded) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.tunnel_ended(self, event.detail)
