"""The numbered frames of one direction that the peer has not acknowledged, and their replay.

Frames get their numbers, 0, 1, 2 …, by being appended. After a reconnect those that the peer has not received
are sent again in the same order, before anything new.
"""

from collections import deque

from cloudtolocalllm.tunnel.errors import RemoteError


class Replay:
    """What may have to be sent again. Its memory is bounded by the sender's checks of `full`."""

    __slots__ = ("acked", "max_bytes", "max_frames", "pending", "unacked", "unacked_bytes")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        """Make it empty, at number 0.

        Args:
            max_frames: `full` from this number of frames on.
            max_bytes: `full` from this number of bytes on.
        """
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self.acked = 0
        """Frames that the peer has acknowledged: the number of the oldest one kept."""
        self.unacked: deque[bytes] = deque()
        """Sent on the present connection (or the last one)."""
        self.pending: deque[bytes] = deque()
        """Numbered on an earlier connection and still to be sent on this one; they follow `unacked`."""
        self.unacked_bytes = 0
        """Bytes of both."""

    @property
    def next_number(self) -> int:
        """The number that the next new frame gets."""
        return self.acked + len(self.unacked) + len(self.pending)

    @property
    def full(self) -> bool:
        """Whether no new frame may be numbered until an ACK comes."""
        return len(self.unacked) >= self.max_frames or self.unacked_bytes >= self.max_bytes

    def append(self, data: bytes) -> None:
        """Number a frame; only when nothing is pending."""
        self.unacked.append(data)
        self.unacked_bytes += len(data)

    def acknowledge(self, number: int) -> None:
        """Forget the frames before `number`.

        Raises:
            RemoteError: They were not all sent on this connection, or were acknowledged before.
        """
        sent = self.acked + len(self.unacked)
        if not self.acked <= number <= sent:
            raise RemoteError(f"expected an acknowledgement of {self.acked} to {sent}, got {number}")
        unacked = self.unacked
        freed = 0
        for _ in range(number - self.acked):
            freed += len(unacked.popleft())
        self.unacked_bytes -= freed
        self.acked = number

    def resume(self, received: int) -> None:
        """Begin a connection to a peer that has received the frames before `received`.

        Raises:
            RemoteError: It claims frames that were never sent, or fewer than it acknowledged.
        """
        if not self.acked <= received <= self.next_number:
            raise RemoteError(f"expected {self.acked} to {self.next_number} received frames in HELLO, got {received}")
        self.unacked.extend(self.pending)
        self.pending.clear()
        self.acknowledge(received)
        self.unacked, self.pending = self.pending, self.unacked

    def clear(self) -> None:
        """Forget everything and begin again at number 0."""
        self.acked = 0
        self.unacked.clear()
        self.pending.clear()
        self.unacked_bytes = 0
