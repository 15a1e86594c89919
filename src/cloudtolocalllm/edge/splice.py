"""Joins two connections byte for byte, each side's back-pressure reaching the other."""

import asyncio
from collections.abc import Callable
from typing import cast

STALL_TIMEOUT = 120.0
"""Seconds a side may leave a full buffer untouched before it is aborted, as an HTTP client may (`write_timeout`)."""
CLOSE_TIMEOUT = 10.0
"""Seconds a side has to take what is left for it once the other has ended."""


class Half(asyncio.Protocol):
    """One side's protocol: what comes in goes out on the other side."""

    __slots__ = ("_deadline", "_ending", "_loop", "_on_end", "_on_gone", "other", "transport")

    def __init__(
        self, transport: asyncio.Transport, on_end: Callable[[], None], on_gone: Callable[[], None] | None = None
    ) -> None:
        self.transport = transport
        self.other: Half = self
        self._on_end = on_end
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._ending = False

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self.other.transport.write(data)

    def eof_received(self) -> None:
        """End both sides once they have everything."""
        self.end()
        self.other.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side; what it has not got yet cannot matter to a peer that is gone."""
        self._ending = True
        self._abort_in(None)
        self.other.end()
        self._on_end()
        if self._on_gone is not None:
            self._on_gone()

    def pause_writing(self) -> None:
        """Our side is slow: stop the other's producer."""
        if not self._ending:
            self._abort_in(STALL_TIMEOUT)
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if not self._ending:
            self._abort_in(None)
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def end(self) -> None:
        """Close once everything is written; a peer that reads nothing does not put that off for ever."""
        if not self._ending:
            self._ending = True
            self.transport.close()
            self._abort_in(CLOSE_TIMEOUT)

    def _abort_in(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self.transport.abort)


def splice(
    left: asyncio.Transport,
    from_left: bytes,
    right: asyncio.Transport,
    from_right: bytes,
    on_end: Callable[[], None],
    on_left_gone: Callable[[], None] | None = None,
) -> None:
    """Join two transports.

    Args:
        left: One side.
        from_left: Bytes that were already read from it.
        right: The other side.
        from_right: Bytes that were already read from it.
        on_end: Called as each side ends (so twice).
        on_left_gone: Called as the left side ends.
    """
    a, b = Half(left, on_end, on_left_gone), Half(right, on_end)
    a.other, b.other = b, a
    left.set_protocol(cast("asyncio.BaseProtocol", a))
    right.set_protocol(cast("asyncio.BaseProtocol", b))
    if from_left:
        right.write(from_left)
    if from_right:
        left.write(from_right)
    if left.is_closing():  # it left while nobody listened: connection_lost went to the old protocol
        b.end()
    if right.is_closing():
        a.end()
