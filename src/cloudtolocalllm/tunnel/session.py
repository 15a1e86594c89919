"""The automaton of one session: messages in, events out, messages to send.

A session outlives its WebSocket. The bridge dials, the proxy accepts; the proxy opens streams, the bridge answers.
The wire format and every rule are in docs/reference/tunnel-protocol.md; what the peer's frames do is in `inbound`,
the order of what is sent in `outbound`.
"""

from typing import Final

from cloudtolocalllm.tunnel.errors import CreditExceededError, LocalError, StreamClosedError
from cloudtolocalllm.tunnel.events import (
    ConnectionDead,
    Event,
    GoAwayReason,
    Headers,
    RequestHead,
    ResetReason,
    ResponseHead,
)
from cloudtolocalllm.tunnel.frames import CREDIT, HEAD, OPEN, PING
from cloudtolocalllm.tunnel.heads import encode_request, encode_response, encode_trailers
from cloudtolocalllm.tunnel.inbound import Connection, Inbound
from cloudtolocalllm.tunnel.inbound import Role as Role
from cloudtolocalllm.tunnel.limits import MAX_INFORMATIONAL, Limits
from cloudtolocalllm.tunnel.streams import BODY, DONE, TRANSITIONS, Half, Signal, Stream, signal_of

_UP: Final = Connection.UP
_MAX_STREAM_ID: Final = 2**32 - 1


class Session(Inbound):
    """One side of a tunnel session.

    After every call below, take `events_received()` and then `data_to_send()` until it returns None. Only the
    WebSocket of the latest `attach()` counts: what an earlier one still delivers is not given to `receive_data`,
    and its closing is not told by `detach()`.
    """

    __slots__ = ()

    def __init__(self, role: Role, session_id: bytes, *, limits: Limits | None = None) -> None:
        """Make a session that has no connection yet.

        Args:
            role: Which side this is.
            session_id: 16 random bytes, chosen by the bridge; the proxy takes them from the bridge's HELLO.
            limits: None for the defaults.

        Raises:
            ValueError: The id has another length.
        """
        super().__init__(role, session_id, limits)

    # --- the connection -------------------------------------------------------------------------------------

    def attach(self, now: float) -> None:
        """Take a new WebSocket into use. Role BRIDGE: raises the epoch by one and sends HELLO.

        Role PROXY: the next message must be the peer's HELLO (see `peek_hello`); it is answered with HELLO.
        A connection that is still attached is replaced: at the bridge at once, at the proxy when the HELLO is
        accepted.

        Args:
            now: Monotonic seconds.

        Raises:
            LocalError: The session has ended.
        """
        if self._ended:
            raise LocalError("expected a session that goes on, got one that has ended: make a new session")
        if self._role is Role.BRIDGE:
            self._lose(now)
            self._out.stop()
            self._epoch += 1
            self._out.control.append(self._hello())
        elif self._state is not Connection.HANDSHAKE:
            self._replaced = self._state is _UP
        self._state = Connection.HANDSHAKE
        self._live.begin_handshake(now)

    def detach(self, now: float) -> None:
        """The WebSocket is gone. Event: Detached, if Attached was told before. The resume window begins."""
        if self._ended:
            return
        self._lose(now)
        self._out.stop()
        self._live.down()
        self._state = Connection.DETACHED

    def events_received(self) -> list[Event]:
        """Return the events since the last call, in order."""
        events = self._events
        self._events = []
        return events

    def data_to_send(self, max_bytes: int = 256 * 1024) -> bytes | None:
        """Return the next binary message, or None when there is nothing to send now.

        Control frames come first; then DATA of the streams in turn (deficit round robin), so that no stream
        waits for another's backlog.

        Args:
            max_bytes: A message grows to about this size; one frame always fits.
        """
        if self._refusal:
            return self._refusal.popleft()
        if self._state is _UP and not self._ended:
            return self._out.message(max_bytes)
        if self._ended or self._role is Role.BRIDGE:
            return self._out.control_message()
        return None

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which `tick()` must be called next, or None.

        It moves to an earlier time only by `attach`, `detach`, and a message that has to be acknowledged
        (`Limits.ack_delay` from then); calling `tick()` too early does no harm.
        """
        if self._ended:
            return None
        live = self._live
        if self._state is _UP:
            when = live.silent_at
            others = (live.ping_at, self._out.ack_at)
        elif live.handshake_by is not None:
            when = live.handshake_by
            others = (live.resume_by, None)
        else:
            return live.resume_by
        for other in others:
            if other is not None and other < when:
                when = other
        return when

    def tick(self, now: float) -> None:
        """Do what time asks for: ping, declare the connection dead, acknowledge, end the session."""
        if self._ended:
            return
        live = self._live
        if self._state is _UP:
            self._tick_up(now)
        elif live.resume_by is not None and now >= live.resume_by:
            self._end(f"not attached again within {self._limits.resume_window:g} s")
        elif live.handshake_by is not None and now >= live.handshake_by:
            self._die(now)

    def _tick_up(self, now: float) -> None:
        out = self._out
        if now >= self._live.silent_at:
            self._die(now)
            return
        if out.ack_at is not None and now >= out.ack_at:
            out.ack_due = True
            out.ack_at = None
        number = self._live.ping_due(now)
        if number is not None:
            out.push_ping(PING, number)

    def _die(self, now: float) -> None:
        """Give the connection up; whatever still comes over it is ignored, and comes again after a reconnect."""
        self._state = Connection.DEAD
        self._out.stop()
        self._live.down()
        if self._announced:
            self._live.lost(now)
        self._events.append(ConnectionDead())

    @property
    def attached(self) -> bool:
        """Whether HELLO was exchanged on a live connection."""
        return self._state is _UP and not self._ended

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        return self._ended

    @property
    def epoch(self) -> int:
        """The epoch of the last connection, 0 before the first: a HELLO up to this one would be refused."""
        return self._epoch

    @property
    def open_streams(self) -> int:
        """Streams that are not finished in both directions."""
        return len(self._streams)

    @property
    def unacked_bytes(self) -> int:
        """Bytes of numbered frames kept for replay, headers included."""
        return self._out.replay.unacked_bytes

    def go_away(self, reason: GoAwayReason) -> None:
        """Tell the peer that no more streams are opened (or accepted); those that run go on.

        It is told again on each later connection.
        """
        if self._ended or reason is self._going_away:
            return
        self._going_away = reason
        if self._state is _UP:
            self._out.push_goaway(reason)

    def end(self, detail: str) -> None:
        """End the session now: open streams are reset locally with SESSION_LOST. Event: SessionEnded.

        The peer is told by GOAWAY(ENDED), behind a GOAWAY that was asked for before. A bridge resets the streams
        that it has accepted, and sends that, before it calls this: the proxy takes the others for refused.
        """
        if not self._ended:
            self._end(detail)
            if self._state is _UP or (self._state is Connection.HANDSHAKE and self._role is Role.BRIDGE):
                self._out.push_goaway(GoAwayReason.ENDED)

    # --- streams --------------------------------------------------------------------------------------------

    def open_stream(self, head: RequestHead) -> int:
        """Open a stream (role PROXY only) and return its id; ids rise and are never reused.

        Allowed while detached, once the session was attached: the frame waits for the next connection.

        Raises:
            LocalError: Never attached, too many streams, the peer is going away, or the head is over the limit or
                malformed.
        """
        if self._role is not Role.PROXY:
            raise LocalError("expected the proxy to open streams, got a call at the bridge")
        if self._ended:
            raise LocalError("expected a session that goes on, got one that has ended: make a new session")
        if not self._origin:
            # The first HELLO decides how many streams there may be, their windows and their first id.
            raise LocalError("expected a session that was attached, got one that never was: wait for Attached")
        reason = self._going_away or self._peer_going_away
        if reason is not None:
            raise LocalError(f"expected a session that takes streams, got one that is going away ({reason.name})")
        if len(self._streams) >= self._max_streams:
            raise LocalError(f"expected fewer than {self._max_streams} open streams, got {len(self._streams)}")
        if self._last_stream >= _MAX_STREAM_ID:
            raise LocalError(f"expected stream ids up to {_MAX_STREAM_ID}, got past them: make a new session")
        payload = encode_request(head, self._limits.max_head)
        self._last_stream += 1
        stream = Stream(self._last_stream, Half.BODY, Half.HEAD, self._window)
        stream.opened = False
        self._streams[stream.id] = stream
        self._out.push(OPEN, stream, payload)
        return stream.id

    def send_head(self, stream_id: int, head: ResponseHead) -> None:
        """Send a response head (role BRIDGE only); informational heads first, then exactly one final head.

        Raises:
            LocalError: The final head was sent before, there are too many informational ones, or the head is
                malformed or over the limit.
            StreamClosedError: The stream has ended.
        """
        if self._role is not Role.BRIDGE:
            raise LocalError("expected the bridge to send heads, got a call at the proxy")
        stream = self._stream(stream_id)
        payload = encode_response(head, self._limits.max_head)
        state = self._next_state(stream, signal_of(head.status))
        if not stream.passes(head.status):
            raise LocalError(f"expected at most {MAX_INFORMATIONAL} informational heads, got more")
        stream.sending = state
        self._out.push(HEAD, stream, payload)

    def window(self, stream_id: int) -> int:
        """Return how many bytes `send_data` takes for this stream now; 0 for one that has ended."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.sending is DONE else stream.window

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Queue payload; it is cut into frames of at most MAX_PAYLOAD.

        Raises:
            CreditExceededError: `data` is longer than `window()`. When the window reaches 0, a `Writable` event
                follows as soon as it opens again.
            StreamClosedError: The stream has ended.
            LocalError: The final response head was not sent yet.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.sending is not BODY:
            self._next_state(self._stream(stream_id), Signal.DATA)
            return
        size = len(data)
        if size > stream.window:
            raise CreditExceededError(f"expected at most {stream.window} bytes on stream {stream_id}, got {size}")
        if size:
            stream.window -= size
            self._out.push_data(stream, data)

    def end_stream(self, stream_id: int, trailers: Headers = ()) -> None:
        """Complete our half of the stream, after the data queued before.

        Raises:
            StreamClosedError: The stream has ended.
            LocalError: The final response head was not sent yet, or the trailers are malformed or over the limit.
        """
        stream = self._stream(stream_id)
        state = self._next_state(stream, Signal.END)
        payload = encode_trailers(trailers, self._limits.max_head)
        stream.sending = state
        self._out.push_end(stream, payload)

    def reset_stream(self, stream_id: int, reason: ResetReason, detail: str = "") -> None:
        """End the stream at once in both directions; queued data is dropped. No effect on a finished stream.

        Args:
            stream_id: The stream.
            reason: Any but SESSION_LOST.
            detail: For the peer's logs; cut to 200 characters of printable ASCII.

        Raises:
            LocalError: The reason is SESSION_LOST.
        """
        if reason is ResetReason.SESSION_LOST:
            raise LocalError("expected a reason that goes on the wire, got SESSION_LOST")
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        self._out.forget(stream)
        # A stream whose OPEN still waits is unknown to the peer: the OPEN was dropped, and nothing is told.
        if stream.opened:
            self._out.push_reset(stream_id, reason, detail)

    def consumed(self, stream_id: int, size: int) -> None:
        """Tell that `size` received bytes were passed on, so that credit can be granted (in large steps).

        No effect on a finished stream.

        Raises:
            LocalError: More than was received.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if not 0 <= size <= stream.unconsumed:
            raise LocalError(f"expected at most {stream.unconsumed} consumed bytes on stream {stream_id}, got {size}")
        stream.unconsumed -= size
        stream.to_grant += size
        if stream.to_grant >= self._grant_step and not stream.granting and stream.receiving is not DONE:
            stream.granting = True
            self._out.push(CREDIT, stream)

    def _stream(self, stream_id: int) -> Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise StreamClosedError(f"expected an open stream, got stream {stream_id}, which has ended or never was")
        return stream

    def _next_state(self, stream: Stream, signal: Signal) -> Half:
        state = TRANSITIONS.get((stream.sending, signal))
        if state is not None:
            return state
        fault = StreamClosedError if stream.sending is DONE else LocalError
        raise fault(f"expected no {signal.value} on stream {stream.id}, which is {stream.sending.value}")
