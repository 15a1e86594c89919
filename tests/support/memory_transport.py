"""A transport without a socket, for protocols under test."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and delivers what the test says the peer sent, unless reading is paused."""

    def __init__(self, protocol: asyncio.Protocol, *, peername: object = ("192.0.2.1", 4242)) -> None:
        super().__init__()
        self._protocol: asyncio.BaseProtocol = protocol
        self._peername = peername
        self._inbox: list[bytes] = []
        self._closing = False
        self.written = bytearray()
        self.writes: list[bytes] = []
        self.reading = True
        self.aborted = False
        self.eof_written = False
        self.closed = asyncio.Event()
        protocol.connection_made(self)

    # --- what the test does ---

    def peer_sends(self, *pieces: bytes) -> None:
        """Deliver input, each piece by itself; it waits while reading is paused."""
        self._inbox.extend(pieces)
        self._deliver()

    def peer_closes(self) -> None:
        """End the peer's side as its kernel does."""
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol)
        if not self._closing and not protocol.eof_received():
            self.close()

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = bytes(self.written)
        self.written.clear()
        self.writes.clear()
        return data

    def fill(self) -> None:
        """Let the buffer go over its high-water mark."""
        self._protocol.pause_writing()

    def empty(self) -> None:
        """Let the buffer fall below its low-water mark."""
        self._protocol.resume_writing()

    @property
    def waiting(self) -> int:
        """Bytes that the protocol has not let in."""
        return sum(map(len, self._inbox))

    def _deliver(self) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol)
        while self._inbox and self.reading and not self._closing:
            protocol.data_received(self._inbox.pop(0))

    # --- asyncio.Transport ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_written, "expected no write after the end"
        if not self._closing:
            self.written += data
            self.writes.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.eof_written = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        assert not self._closing, "uvloop raises on a closed transport"
        assert self.reading, "expected a reading transport"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self._closing, "uvloop raises on a closed transport"
        self.reading = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self.reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peername if name == "peername" else default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._lost)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def _lost(self) -> None:
        self._protocol.connection_lost(None)
        self.closed.set()


async def turns(count: int = 4) -> None:
    """Let the loop run what was scheduled."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that no event announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is not ours to announce
            await asyncio.sleep(0.005)
