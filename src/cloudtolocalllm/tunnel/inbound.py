"""What the peer's messages do to a session: the receiving half of the automaton.

`Session` adds the calls of the owner. The states of the connection:

    DETACHED ── attach ──► HANDSHAKE ── HELLO ──► UP ── silence ──► DEAD ── detach ──► DETACHED

and `ended`, from anywhere, for good.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final

from cloudtolocalllm.tunnel.errors import EpochFencedError, RemoteError
from cloudtolocalllm.tunnel.events import (
    Attached,
    DataReceived,
    Detached,
    EndReceived,
    Event,
    GoAwayReason,
    GoAwayReceived,
    RequestReceived,
    ResetReason,
    ResponseReceived,
    SessionEnded,
    StreamReset,
    Writable,
)
from cloudtolocalllm.tunnel.frames import (
    ACK,
    CREDIT,
    DATA,
    END,
    FIRST_NUMBERED,
    GOAWAY,
    HEAD,
    HEADER,
    HEADER_BYTES,
    HELLO,
    KIND_NAMES,
    OPEN,
    PING,
    PONG,
    RESET,
    Hello,
    check_control,
    check_header,
    decode_ack,
    decode_credit,
    decode_goaway,
    decode_hello,
    decode_ping,
    decode_reset,
    encode_goaway,
    encode_hello,
)
from cloudtolocalllm.tunnel.handshake import Known, begins_anew_at_bridge, begins_anew_at_proxy
from cloudtolocalllm.tunnel.heads import decode_request, decode_response, decode_trailers
from cloudtolocalllm.tunnel.limits import (
    DEFAULT_LIMITS,
    MAX_INFORMATIONAL,
    MAX_PAYLOAD,
    MIN_REPLAY_BYTES,
    SESSION_ID_BYTES,
    VERSION,
    Limits,
)
from cloudtolocalllm.tunnel.liveness import Liveness
from cloudtolocalllm.tunnel.outbound import Outbound
from cloudtolocalllm.tunnel.streams import BODY, DONE, TRANSITIONS, Half, Signal, Stream, signal_of


class Role(Enum):
    """Which side of the tunnel a session object is."""

    PROXY = "proxy"
    BRIDGE = "bridge"


class Connection(Enum):
    """The state of the session's connection."""

    DETACHED = "detached"
    HANDSHAKE = "awaiting HELLO"
    UP = "up"
    DEAD = "dead"


_UP: Final = Connection.UP
_FATAL: Final = frozenset((GoAwayReason.PROTOCOL_ERROR, GoAwayReason.VERSION))
"""After these the peer has ended its session, so ours cannot be resumed."""


class Inbound:
    """One side of a session, as far as the peer's messages move it."""

    __slots__ = (
        "_announced",
        "_ended",
        "_epoch",
        "_events",
        "_first_stream",
        "_going_away",
        "_grant_step",
        "_last_stream",
        "_limits",
        "_live",
        "_max_streams",
        "_origin",
        "_out",
        "_peer_going_away",
        "_peer_limits",
        "_refusal",
        "_replaced",
        "_role",
        "_session_id",
        "_state",
        "_streams",
        "_window",
    )

    def __init__(self, role: Role, session_id: bytes, limits: Limits | None) -> None:
        """Make a session that has no connection yet."""
        if len(session_id) != SESSION_ID_BYTES:
            raise ValueError(f"expected a session id of {SESSION_ID_BYTES} bytes, got {len(session_id)}")
        self._role = role
        self._session_id = session_id
        self._limits = limits or DEFAULT_LIMITS
        self._state = Connection.DETACHED
        self._ended = False
        self._announced = False
        """Whether the owner was told Attached and not yet Detached."""
        self._replaced = False
        """Proxy, while a HELLO is awaited: whether the connection before is still up."""
        self._refusal: deque[bytes | None] = deque()
        self._epoch = 0
        self._origin = 0
        self._first_stream = 1
        self._last_stream = 0
        """The highest stream id that was opened (by us at the proxy, by the peer at the bridge)."""
        self._window = self._limits.window
        self._max_streams = self._limits.max_streams
        self._grant_step = 1
        self._peer_limits = (0, 0)
        self._going_away: GoAwayReason | None = None
        self._peer_going_away: GoAwayReason | None = None
        self._events: list[Event] = []
        self._streams: dict[int, Stream] = {}
        self._out = Outbound(self._limits, self._streams)
        self._live = Liveness(self._limits)

    def receive_data(self, message: bytes, now: float) -> None:
        """Take one binary WebSocket message: one or more whole frames.

        A message that comes after the connection was given up, or after the session ended, is ignored.

        Args:
            message: As received.
            now: Monotonic seconds.

        Raises:
            EpochFencedError: Role PROXY: the HELLO is of an old connection. `data_to_send()` then holds, until it
                returns None, what to send to that connection before it is closed with 1002; the session goes on
                with the connection it had, so `detach()` is not called for the refused one.
            RemoteError: The peer broke the protocol. `data_to_send()` then holds a GOAWAY to send before the
                WebSocket is closed with 1002; the session has ended.
        """
        if self._ended or self._state is Connection.DETACHED or self._state is Connection.DEAD:
            return
        if self._state is _UP:
            self._live.heard = now
        out = self._out
        before = out.received
        try:
            self._take_frames(message, now)
        except EpochFencedError as fault:
            self._refuse(fault)
            raise
        except RemoteError as fault:
            self._end(str(fault))
            out.push_goaway(fault.goaway)
            raise
        if out.received != before:
            out.note_received(len(message), now)

    def _take_frames(self, message: bytes, now: float) -> None:
        size = len(message)
        position = 0
        up = self._state is _UP
        while True:
            start = position + HEADER_BYTES
            if size < start:
                raise RemoteError(f"expected a frame header of {HEADER_BYTES} bytes, got {size - position}")
            kind, flags, stream_id, length = HEADER.unpack_from(message, position)
            position = start + length
            if flags or length > MAX_PAYLOAD or position > size:
                check_header(flags, length, size - start)
            if kind == DATA and up:
                self._out.received += 1
                stream = self._streams.get(stream_id)
                if stream is not None and stream.receiving is BODY and 0 < length <= stream.credit:
                    stream.credit -= length
                    stream.unconsumed += length
                    self._events.append(DataReceived(stream_id, message[start:position]))
                else:
                    self._check_stray_data(stream_id, stream, length)
            else:
                self._take_frame(kind, stream_id, message[start:position], now)
                up = self._state is _UP
            if position == size or self._ended:
                return

    def _take_frame(self, kind: int, stream_id: int, payload: bytes, now: float) -> None:
        if kind not in KIND_NAMES:
            raise RemoteError(f"expected a frame type of this protocol, got {kind}")
        if self._state is not _UP and kind not in (HELLO, GOAWAY):
            raise RemoteError(f"expected HELLO as the first frame, got {KIND_NAMES[kind]}")
        if kind >= FIRST_NUMBERED:
            self._out.received += 1
            self._STREAM_FRAMES[kind](self, stream_id, payload)
            return
        check_control(kind, stream_id)
        if kind == ACK:
            self._out.acknowledge(decode_ack(payload))
        elif kind == PING:
            self._out.pong = decode_ping(payload, PING)
        elif kind == PONG:
            self._take_pong(decode_ping(payload, PONG))
        elif kind == GOAWAY:
            self._take_goaway(decode_goaway(payload))
        else:
            self._take_hello(decode_hello(payload), now)

    # --- the connection -------------------------------------------------------------------------------------

    def _take_hello(self, hello: Hello, now: float) -> None:
        if self._state is _UP:
            raise RemoteError("expected one HELLO on a connection, got a second")
        known = Known(
            session_id=self._session_id,
            epoch=self._epoch,
            origin=self._origin,
            used=bool(self._out.received or self._out.replay.acked),
            peer_limits=self._peer_limits,
            first_stream=self._first_stream,
            last_stream=self._last_stream,
        )
        resumed = bool(self._origin)
        if self._role is Role.PROXY:
            anew = begins_anew_at_proxy(known, hello)
            if anew and not resumed:
                self._first_stream = hello.last_stream + 1
                self._last_stream = hello.last_stream
        else:
            anew = begins_anew_at_bridge(known, hello)
            if anew:
                resumed = False
                self._peer_going_away = None
                self._lose_streams()
                self._out.clear()
        self._out.start(0 if anew else hello.received)
        self._epoch = hello.epoch
        if anew:
            self._origin = hello.epoch
            self._settle(hello)
        if self._role is Role.PROXY:
            self._out.control.append(self._hello())
        self._up(resumed, now)

    def _settle(self, hello: Hello) -> None:
        """Take the smaller one of both sides' limits, for as long as this numbering lives."""
        self._peer_limits = (hello.window, hello.max_streams)
        self._window = min(self._limits.window, hello.window)
        self._max_streams = min(self._limits.max_streams, hello.max_streams)
        self._grant_step = (self._window + 1) // 2
        self._out.replay.max_bytes = max(self._window * self._max_streams, MIN_REPLAY_BYTES)

    def _up(self, resumed: bool, now: float) -> None:
        self._lose(now)
        self._state = _UP
        self._announced = True
        self._live.up(now, pinging=self._role is Role.BRIDGE)
        if self._going_away is not None:
            self._out.push_goaway(self._going_away)
        self._events.append(Attached(resumed, self._epoch))

    def _hello(self) -> bytes:
        bridge = self._role is Role.BRIDGE
        return encode_hello(
            Hello(
                version=VERSION,
                session_id=self._session_id,
                epoch=self._epoch,
                received=self._out.received,
                window=self._limits.window,
                max_streams=self._limits.max_streams,
                origin=self._origin,
                last_stream=self._last_stream if bridge else 0,
            )
        )

    def _lose(self, now: float) -> None:
        """Tell the owner of a connection that is gone, if it knew of it."""
        if self._announced:
            self._announced = False
            self._events.append(Detached())
            self._live.lost(now)

    def _refuse(self, fault: EpochFencedError) -> None:
        """Go on with the connection before; None keeps its frames off the one that is refused."""
        self._refusal.extend((encode_goaway(fault.goaway), None))
        self._state = _UP if self._replaced else Connection.DETACHED
        self._live.handshake_by = None

    def _take_pong(self, number: int) -> None:
        if not 1 <= number <= self._live.pings:
            raise RemoteError("expected the bytes of a PING of this connection in PONG, got others")

    def _take_goaway(self, reason: GoAwayReason) -> None:
        if reason is GoAwayReason.ENDED:
            self._end("the peer ended the session", unanswered=ResetReason.REFUSED)
            return
        if reason is not self._peer_going_away:
            self._peer_going_away = reason
            self._events.append(GoAwayReceived(reason))
        if reason in _FATAL:
            self._end(f"the peer ended the session: {reason.name}")

    def _end(self, detail: str, *, unanswered: ResetReason = ResetReason.SESSION_LOST) -> None:
        if self._ended:
            return
        self._ended = True
        self._lose_streams(unanswered)
        # A bridge that waits for HELLO has sent its own: what it says after it reaches a proxy that takes it up.
        heard = self._state is _UP or (self._state is Connection.HANDSHAKE and self._role is Role.BRIDGE)
        goaways = list(self._out.control) if heard else []
        self._out.clear()
        self._out.control = goaways
        self._events.append(SessionEnded(detail))

    def _lose_streams(self, unanswered: ResetReason = ResetReason.SESSION_LOST) -> None:
        """Reset what is open: requests of which the bridge has said nothing with a reason of their own."""
        for stream in self._streams.values():
            reason = unanswered if stream.receiving is Half.HEAD else ResetReason.SESSION_LOST
            self._events.append(StreamReset(stream.id, reason))
        self._streams.clear()

    # --- frames of streams ----------------------------------------------------------------------------------

    def _find(self, kind: int, stream_id: int) -> Stream | None:
        """Return an open stream, or None for one that we reset while this frame was on its way."""
        stream = self._streams.get(stream_id)
        if stream is not None or stream_id in self._out.reset_ids:
            return stream
        fate = "which has ended" if 0 < stream_id <= self._last_stream else "which was never opened"
        raise RemoteError(f"expected an open stream, got {KIND_NAMES[kind]} for stream {stream_id}, {fate}")

    def _find_late(self, kind: int, stream_id: int) -> Stream | None:
        """As `_find`, for frames that may cross with the END by which a stream finished."""
        if 0 < stream_id <= self._last_stream:
            return self._streams.get(stream_id)
        return self._find(kind, stream_id)

    def _receive(self, stream: Stream, signal: Signal) -> None:
        state = TRANSITIONS.get((stream.receiving, signal))
        if state is None:
            raise RemoteError(f"expected no {signal.value} on stream {stream.id}, which is {stream.receiving.value}")
        stream.receiving = state

    def _take_open(self, stream_id: int, payload: bytes) -> None:
        if self._role is Role.PROXY:
            raise RemoteError("expected no OPEN from a bridge, got one")
        if stream_id <= self._last_stream:
            raise RemoteError(f"expected a stream id above {self._last_stream}, got {stream_id}")
        head = decode_request(payload, self._limits.max_head)
        self._last_stream = stream_id
        if len(self._streams) >= self._max_streams or self._going_away is not None:
            # No error of the peer's: our END, or our GOAWAY, may have crossed with this.
            if len(self._out.reset_ids) > self._limits.max_unacked_frames + self._max_streams:
                raise RemoteError("expected refused streams to be acknowledged, got more and more OPENs")
            self._out.push_reset(stream_id, ResetReason.REFUSED, "")
            return
        self._streams[stream_id] = Stream(stream_id, Half.HEAD, Half.BODY, self._window)
        self._events.append(RequestReceived(stream_id, head))

    def _take_head(self, stream_id: int, payload: bytes) -> None:
        if self._role is Role.BRIDGE:
            raise RemoteError("expected no HEAD from a proxy, got one")
        stream = self._find(HEAD, stream_id)
        head = decode_response(payload, self._limits.max_head)
        if stream is None:
            return
        self._receive(stream, signal_of(head.status))
        if not stream.passes(head.status):
            raise RemoteError(f"expected at most {MAX_INFORMATIONAL} informational heads, got more")
        self._events.append(ResponseReceived(stream_id, head))

    def _check_stray_data(self, stream_id: int, stream: Stream | None, length: int) -> None:
        """Raise for DATA that breaks a rule; DATA of a stream that we reset is dropped."""
        if not length:
            raise RemoteError("expected at least 1 byte in DATA, got 0")
        stream = stream or self._find(DATA, stream_id)
        if stream is None:
            return
        self._receive(stream, Signal.DATA)
        raise RemoteError(f"expected at most {stream.credit} bytes of DATA on stream {stream_id}, got {length}")

    def _take_end(self, stream_id: int, payload: bytes) -> None:
        stream = self._find(END, stream_id)
        trailers = decode_trailers(payload, self._limits.max_head)
        if stream is None:
            return
        self._receive(stream, Signal.END)
        if stream.flushed:
            del self._streams[stream_id]
        self._events.append(EndReceived(stream_id, trailers))

    def _take_reset(self, stream_id: int, payload: bytes) -> None:
        stream = self._find_late(RESET, stream_id)
        reason, detail = decode_reset(payload)
        if stream is None:
            return
        del self._streams[stream_id]
        self._out.forget(stream)
        self._events.append(StreamReset(stream_id, reason, detail))

    def _take_credit(self, stream_id: int, payload: bytes) -> None:
        stream = self._find_late(CREDIT, stream_id)
        size = decode_credit(payload)
        if stream is None:
            return
        if size > stream.in_flight:
            raise RemoteError(
                f"expected at most {stream.in_flight} bytes of CREDIT on stream {stream_id}, got {size}"
            )
        stream.in_flight -= size
        if not stream.window and stream.sending is not DONE:
            self._events.append(Writable(stream_id))
        stream.window += size

    _STREAM_FRAMES: ClassVar[dict[int, Callable[["Inbound", int, bytes], None]]] = {
        OPEN: _take_open,
        HEAD: _take_head,
        END: _take_end,
        RESET: _take_reset,
        CREDIT: _take_credit,
    }
