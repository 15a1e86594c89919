"""Carries a record to a tunnel stream, at the pace that the stream's window allows."""

import asyncio

from cloudtolocalllm.bridge.journal import Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.runtime.http1 import Headers
from cloudtolocalllm.tunnel import ResetReason, ResponseHead


class StreamFollower:
    """One reader of a record: the stream of the request itself, or one that attached to it.

    Its owner calls `pump` when the stream is writable again and `leave` when it was reset.
    """

    __slots__ = ("_bodyless", "_done", "_fields", "_headed", "_record", "_replay", "_stream", "offset")

    def __init__(
        self,
        record: Record,
        stream: Port,
        *,
        offset: int = 0,
        replay: bool = False,
        bodyless: bool = False,
        fields: Headers = (),
    ) -> None:
        """Begin to follow.

        Args:
            record: What to carry.
            stream: Where to.
            offset: Bytes of content to skip.
            replay: Whether this is a later attachment, whose content has another length than the answer's.
            bodyless: Whether only the head is wanted (HEAD).
            fields: More of the head, for this reader only.
        """
        self._record = record
        self._stream = stream
        self.offset = offset
        self._replay = replay
        self._bodyless = bodyless
        self._fields = fields
        self._headed = False
        self._done = False
        record.follow(self)
        if record.status:
            self.headed()
        elif record.ended:
            self.ended()

    def informed(self, status: int, headers: Headers) -> None:
        """Pass an informational response on."""
        if not self._headed and not self._done:
            self._stream.send_head(ResponseHead(status, headers))

    def headed(self) -> None:
        """Send the head and what content there is."""
        record = self._record
        headers = record.headers
        if self._replay:
            headers = tuple(field for field in headers if field[0] != b"content-length")
        self._headed = True
        self._stream.send_head(ResponseHead(record.status, (*headers, *self._fields)))
        if self._bodyless:
            self._finish()
        else:
            self.pump()

    def grew(self, data: bytes, at: int) -> bool:
        """Send new content at once when nothing waits before it; the way of every token."""
        if self.offset == at and self._stream.window >= len(data) and not self._done:
            self.offset = at + len(data)
            self._stream.send_data(data)
            return True
        return self.pump()

    def ended(self) -> None:
        """Send what is left and the end."""
        self.pump()

    def dropped(self) -> None:
        """Break the stream off: its content is not kept any more."""
        if not self._done:
            self._done = True
            self._stream.reset(ResetReason.TOO_LARGE, "the reader fell too far behind an answer that is not kept")

    def pump(self) -> bool:
        """Send as much as the window allows; return whether all content so far is sent."""
        record, stream = self._record, self._stream
        if self._done:
            return True
        if not self._headed and not record.ended:
            return self.offset >= record.size
        while self.offset < record.size:
            size = min(stream.window, record.size - self.offset)
            if size <= 0:
                return False
            data = record.read(self.offset, size)
            self.offset += size
            stream.send_data(data)
        if record.ended:
            self._finish()
        return True

    def leave(self) -> None:
        """Follow no more, without a word to the stream."""
        self._done = True
        self._record.unfollow(self)

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        record = self._record
        if record.cut and not self._bodyless:
            # A reset drops what is queued: let the tunnel send this turn's content first.
            asyncio.get_running_loop().call_soon(self._stream.reset, ResetReason.ENGINE_ERROR, record.cut)
        else:
            self._stream.end(() if self._bodyless else record.trailers)
        record.unfollow(self)


class Watching:
    """The handler of a stream that reads a record and whose own content means nothing."""

    __slots__ = ("_follower", "_record", "_stream")

    def __init__(self, record: Record, follower: StreamFollower, stream: Port) -> None:
        self._record = record
        self._follower = follower
        self._stream = stream

    def on_head(self, head: object) -> None:
        """Never called in the role of a bridge."""

    def on_data(self, data: bytes) -> None:
        """Content that is not wanted is read over, so that the tunnel's credit comes back."""
        self._stream.consumed(len(data))

    def on_end(self, trailers: Headers) -> None:
        """The request is complete."""

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        """The reader went away; what it read goes on."""
        self._follower.leave()

    def on_writable(self) -> None:
        """The stream's window opened."""
        if self._follower.pump():
            self._record.drained()
