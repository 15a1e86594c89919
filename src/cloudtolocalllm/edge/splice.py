"""Joins two connections byte for byte, each side's back-pressure reaching the other."""

import asyncio
from collections.abc import Callable
from typing import cast


class Half(asyncio.Protocol):
    """One side's protocol: what comes in goes out on the other side."""

    __slots__ = ("_on_end", "other", "transport")

    def __init__(self, transport: asyncio.Transport, on_end: Callable[[], None]) -> None:
        self.transport = transport
        self.other: Half = self
        self._on_end = on_end

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self.other.transport.write(data)

    def eof_received(self) -> None:
        """End the other side once it has everything."""
        self.other.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side; what it has not got yet cannot matter to a peer that is gone."""
        self.other.transport.close()
        self._on_end()

    def pause_writing(self) -> None:
        """Our side is slow: stop the other's producer."""
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()


def splice(
    left: asyncio.Transport, from_left: bytes, right: asyncio.Transport, from_right: bytes, on_end: Callable[[], None]
) -> None:
    """Join two transports.

    Args:
        left: One side.
        from_left: Bytes that were already read from it.
        right: The other side.
        from_right: Bytes that were already read from it.
        on_end: Called as each side ends (so twice).
    """
    a, b = Half(left, on_end), Half(right, on_end)
    a.other, b.other = b, a
    left.set_protocol(cast("asyncio.BaseProtocol", a))
    right.set_protocol(cast("asyncio.BaseProtocol", b))
    if from_left:
        right.write(from_left)
    if from_right:
        left.write(from_right)
    if left.is_closing():  # it left while nobody listened: connection_lost went to the old protocol
        right.close()
    if right.is_closing():
        left.close()
