"""Everything that one side has to send, and in which order.

1. control frames (HELLO first of all, GOAWAY, PING, PONG),
2. numbered frames that an earlier connection may have lost,
3. ACK: not before all of 2, so that an ACK also tells that nothing sent before it is still to come; and before
   any CREDIT, so that bytes granted again are never bytes that must still be kept for replay,
4. RESETs, then OPENs, HEADs, CREDITs and ENDs as they came: small frames in number bounded by the streams,
5. DATA, by deficit round robin over the streams that have some. The END that waited for it goes with 4.
"""

from collections import deque
from typing import Final

from cloudtolocalllm.tunnel.events import GoAwayReason, ResetReason
from cloudtolocalllm.tunnel.frames import (
    CREDIT,
    DATA,
    END,
    HEADER,
    OPEN,
    PONG,
    encode_ack,
    encode_credit,
    encode_goaway,
    encode_ping,
    encode_reset,
    frame,
)
from cloudtolocalllm.tunnel.limits import MAX_PAYLOAD, MIN_REPLAY_BYTES, QUANTUM, Limits
from cloudtolocalllm.tunnel.replay import Replay
from cloudtolocalllm.tunnel.streams import DONE, Stream

# A chunk of 20 bytes costs about 100 in a queue. Chunks pass as they came, but behind this many of the same
# stream small ones are joined, so that a queue's memory stays near its bytes however small they are cut.
_JOIN_BEHIND: Final = 64
_JOIN_BYTES: Final = 4 * 1024


class Outbound:
    """The queues of one side of a session, and the numbering of both directions."""

    __slots__ = (
        "_active",
        "_limits",
        "_reset_numbers",
        "_resets",
        "_streams",
        "_urgent",
        "ack_at",
        "ack_bytes",
        "ack_due",
        "acknowledged",
        "control",
        "pong",
        "received",
        "replay",
        "reset_ids",
    )

    def __init__(self, limits: Limits, streams: dict[int, Stream]) -> None:
        """Make empty queues.

        Args:
            limits: This side's.
            streams: The session's streams; those that finish by what is sent are removed from it.
        """
        self._limits = limits
        self._streams = streams
        self.control: list[bytes] = []
        self.pong: int | None = None
        """The number of the latest PING to answer; earlier ones need no answer of their own."""
        self.replay = Replay(limits.max_unacked_frames, MIN_REPLAY_BYTES)
        self._resets: deque[tuple[int, bytes]] = deque()
        self._urgent: deque[tuple[int, Stream, bytes]] = deque()
        self._active: deque[Stream] = deque()
        self.reset_ids: set[int] = set()
        """Streams that we reset and for which the peer may still have frames on the way."""
        self._reset_numbers: deque[tuple[int, int]] = deque()
        """The number and stream of each RESET that was sent and not acknowledged."""
        self.received = 0
        """Numbered frames that came: the number of the next one."""
        self.acknowledged = 0
        """What the peer was told of them."""
        self.ack_bytes = 0
        self.ack_due = False
        self.ack_at: float | None = None
        """When an ACK becomes due."""

    # --- what there is to send ------------------------------------------------------------------------------

    def push(self, kind: int, stream: Stream, payload: bytes = b"") -> None:
        """Queue an OPEN, HEAD, END or CREDIT (whose payload is made when it is sent)."""
        stream.urgent += 1
        self._urgent.append((kind, stream, payload))

    def push_data(self, stream: Stream, data: bytes) -> None:
        """Queue payload, which the stream's window has room for."""
        queue = stream.queue
        if not stream.active:
            stream.active = True
            if not self._active:
                stream.deficit = QUANTUM
            self._active.append(stream)
        elif len(queue) > _JOIN_BEHIND and len(queue[-1]) + len(data) <= _JOIN_BYTES:
            queue[-1] = bytes(queue[-1]) + data
            return
        queue.append(data)

    def push_end(self, stream: Stream, payload: bytes) -> None:
        """Queue the END of our half, behind its data."""
        if stream.active:
            stream.end = payload
        else:
            self.push(END, stream, payload)

    def push_reset(self, stream_id: int, reason: ResetReason, detail: str) -> None:
        """Queue a RESET, before whatever else waits; frames of this stream may come until it is acknowledged."""
        self.reset_ids.add(stream_id)
        self._resets.append((stream_id, encode_reset(stream_id, reason, detail)))

    def push_goaway(self, reason: GoAwayReason) -> None:
        """Queue a GOAWAY, once for each reason."""
        data = encode_goaway(reason)
        if data not in self.control:
            self.control.append(data)

    def push_ping(self, kind: int, number: int) -> None:
        """Queue a PING."""
        self.control.append(encode_ping(kind, number))

    def forget(self, stream: Stream) -> None:
        """Drop everything queued for a stream that was reset."""
        stream.queue.clear()
        stream.end = None
        if stream.active:
            stream.active = False
            if self._active[0] is stream:
                self._next_turn()
            else:
                self._active.remove(stream)
        if stream.urgent:
            self._urgent = deque(entry for entry in self._urgent if entry[1] is not stream)
            stream.urgent = 0

    # --- connections ----------------------------------------------------------------------------------------

    def start(self, peer_received: int) -> None:
        """Begin a connection to a peer that has received this many of our numbered frames.

        Raises:
            RemoteError: It cannot have.
        """
        self.replay.resume(peer_received)
        self.stop()

    def stop(self) -> None:
        """Forget what belongs to one connection only."""
        self.control.clear()
        self.pong = None
        # HELLO tells what was received, at this start or at the next one.
        self._acknowledge()

    def clear(self) -> None:
        """Forget everything and begin the numbering of both directions again."""
        self.received = 0
        self.stop()
        self.replay.clear()
        self._resets.clear()
        self._urgent.clear()
        self._active.clear()
        self.reset_ids.clear()
        self._reset_numbers.clear()

    def acknowledge(self, number: int) -> None:
        """Take the peer's ACK.

        Raises:
            RemoteError: It acknowledges what was not sent, or less than before.
        """
        self.replay.acknowledge(number)
        numbers = self._reset_numbers
        while numbers and numbers[0][0] < number:
            self.reset_ids.discard(numbers.popleft()[1])

    def note_received(self, size: int, now: float) -> None:
        """Count a message of `size` bytes with numbered frames, and see when it has to be acknowledged."""
        limits = self._limits
        self.ack_bytes += size
        if self.received - self.acknowledged >= limits.ack_every_frames or self.ack_bytes >= limits.ack_every_bytes:
            self.ack_due = True
        elif self.ack_at is None:
            self.ack_at = now + limits.ack_delay

    # --- sending --------------------------------------------------------------------------------------------

    def control_message(self) -> bytes | None:
        """Return the control frames alone: what may be sent while HELLO is awaited or the session has ended."""
        message = b"".join(self.control)
        self.control.clear()
        return message or None

    def message(self, max_bytes: int) -> bytes | None:
        """Return the next message of about `max_bytes`, or None when there is nothing to send now."""
        parts = self.control
        self.control = []
        if self.pong is not None:
            parts.append(encode_ping(PONG, self.pong))
            self.pong = None
        replay = self.replay
        size = sum(map(len, parts)) if parts else 0
        while replay.pending and size < max_bytes:
            size += self._send(parts, replay.pending.popleft())
        if replay.pending:
            return b"".join(parts)
        waiting = bool(self._active or self._urgent or self._resets)
        if self.acknowledged != self.received and (self.ack_due or parts or waiting):
            parts.append(encode_ack(self.received))
            self._acknowledge()
        if waiting and size < max_bytes:
            size = self._send_urgent(parts, size, max_bytes)
            if self._active and not self._urgent and not self._resets:
                size = self._send_data(parts, size, max_bytes)
                self._send_urgent(parts, size, max_bytes)
        if len(parts) == 1:
            return parts[0]
        return b"".join(parts) or None

    def _send(self, parts: list[bytes], data: bytes) -> int:
        parts.append(data)
        self.replay.unacked.append(data)
        return len(data)

    def _send_urgent(self, parts: list[bytes], size: int, max_bytes: int) -> int:
        replay = self.replay
        while (self._resets or self._urgent) and size < max_bytes and not replay.full:
            if self._resets:
                stream_id, data = self._resets.popleft()
                self._reset_numbers.append((replay.next_number, stream_id))
            else:
                kind, stream, payload = self._urgent.popleft()
                stream.urgent -= 1
                if kind == CREDIT:
                    payload = self._grant(stream)
                    if not payload:
                        continue
                elif kind == OPEN:
                    stream.opened = True
                elif kind == END:
                    self._flushed(stream)
                data = frame(kind, stream.id, payload)
            replay.append(data)
            parts.append(data)
            size += len(data)
        return size

    def _send_data(self, parts: list[bytes], size: int, max_bytes: int) -> int:
        active = self._active
        replay = self.replay
        while active and size < max_bytes and not replay.full:
            stream = active[0]
            queue = stream.queue
            chunk = queue[0]
            length = len(chunk)
            if len(active) == 1:
                piece = min(length, MAX_PAYLOAD)
            else:
                piece = min(length, QUANTUM)
                if piece > stream.deficit:
                    active.append(stream)
                    self._next_turn()
                    continue
                stream.deficit -= piece
            if piece < length:
                # A view: slicing the rest off again and again would copy a large chunk many times over.
                rest = memoryview(chunk)
                queue[0] = rest[piece:]
                chunk = rest[:piece]
            else:
                del queue[0]
            stream.in_flight += piece
            data = HEADER.pack(DATA, 0, stream.id, piece) + chunk
            replay.append(data)
            parts.append(data)
            size += len(data)
            if not queue:
                stream.active = False
                self._next_turn()
                if stream.end is not None:
                    self.push(END, stream, stream.end)
                    stream.end = None
        return size

    def _next_turn(self) -> None:
        """Take the stream in front out of the round; the turn of the next one begins."""
        active = self._active
        stream = active.popleft()
        if not stream.active:
            stream.deficit = 0
        if active:
            active[0].deficit += QUANTUM

    def _grant(self, stream: Stream) -> bytes:
        stream.granting = False
        size = stream.to_grant
        stream.to_grant = 0
        if stream.receiving is DONE:
            return b""
        stream.credit += size
        return encode_credit(size)

    def _flushed(self, stream: Stream) -> None:
        stream.flushed = True
        if stream.receiving is DONE:
            self._streams.pop(stream.id, None)

    def _acknowledge(self) -> None:
        self.acknowledged = self.received
        self.ack_bytes = 0
        self.ack_due = False
        self.ack_at = None
