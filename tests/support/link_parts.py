"""Parts for tests of tunnels: wires in memory, handlers that record, a bridge's echo, a front that takes upgrades."""

import asyncio
from collections.abc import Callable
from typing import cast

from picows import WSCloseCode

from cloudtolocalllm.link import Stream, TunnelServer
from cloudtolocalllm.link.wire import WireOwner
from cloudtolocalllm.tunnel import Headers, RequestHead, ResetReason, ResponseHead

POST = RequestHead("POST", "/v1/chat/completions", ((b"content-type", b"application/json"),))
OK = ResponseHead(200, ((b"content-type", b"text/event-stream"),))


class MemoryWire:
    """One end of a connection in memory; what is sent arrives in the next turn of the loop."""

    def __init__(self) -> None:
        self.owner: WireOwner | None = None
        self.paused = False
        self.other: MemoryWire = self
        self.sent: list[bytes] = []
        self.closed: WSCloseCode | None = None
        self.aborted = False
        self.stalled = False
        """While true, what is sent to this end waits, and the other end's transport is full."""
        self._waiting: list[bytes] = []

    @classmethod
    def pair(cls) -> "tuple[MemoryWire, MemoryWire]":
        near, far = cls(), cls()
        near.other, far.other = far, near
        return near, far

    def send(self, message: bytes) -> bool:
        if not self.aborted and self.closed is None:
            self.sent.append(message)
            asyncio.get_running_loop().call_soon(self.other._arrive, message)
            self.paused = self.other.stalled
        return not self.paused

    def buffered(self) -> int:
        return sum(map(len, self.other._waiting))

    def close(self, code: WSCloseCode) -> None:
        self.owner = None
        if self.closed is None:
            self.closed = code
            asyncio.get_running_loop().call_soon(self.other._lose)

    def abort(self) -> None:
        self.owner = None
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.other._lose)

    def cut(self) -> None:
        """Lose the connection at both ends, with what is on its way."""
        for end in (self, self.other):
            end._lose()

    def release(self) -> None:
        """Read on after a stall."""
        self.stalled = False
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._arrive(message)
        self.other.paused = False
        if self.other.owner is not None:
            self.other.owner.wire_writable(self.other)

    def _arrive(self, message: bytes) -> None:
        if self.stalled:
            self._waiting.append(message)
        elif self.owner is not None:
            self.owner.wire_message(self, message, True)

    def _lose(self) -> None:
        owner, self.owner = self.owner, None
        self.aborted = True
        if owner is not None:
            owner.wire_lost(self)


class Recorder:
    """A handler that keeps what it is told and grants credit at once (or on demand)."""

    def __init__(self, *, granting: bool = True) -> None:
        self.heads: list[ResponseHead] = []
        self.data = bytearray()
        self.trailers: Headers | None = None
        self.reset: tuple[ResetReason, str] | None = None
        self.writable = 0
        self.stream: Stream | None = None
        self.granting = granting
        self.owed = 0
        self.done = asyncio.Event()
        self.pump: Callable[[], None] | None = None

    def on_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_data(self, data: bytes) -> None:
        self.data += data
        if self.granting and self.stream is not None:
            self.stream.consumed(len(data))
        else:
            self.owed += len(data)

    def grant(self) -> None:
        """Grant what was not granted yet, and at once from now on."""
        assert self.stream is not None
        self.granting = True
        owed, self.owed = self.owed, 0
        self.stream.consumed(owed)

    def on_end(self, trailers: Headers) -> None:
        self.trailers = trailers
        self.done.set()

    def on_reset(self, reason: ResetReason, detail: str) -> None:
        self.reset = (reason, detail)
        self.done.set()

    def on_writable(self) -> None:
        self.writable += 1
        if self.pump is not None:
            self.pump()


class Sender:
    """Sends bytes on a stream as fast as its window opens."""

    def __init__(self, stream: Stream, data: bytes, *, chunk: int = 8192, end: bool = True) -> None:
        self._stream = stream
        self._data = memoryview(data)
        self._chunk = chunk
        self._end = end
        self._ended = False
        self.sent = 0

    def pump(self) -> None:
        while self.sent < len(self._data):
            size = min(self._stream.window, self._chunk, len(self._data) - self.sent)
            if size == 0:
                return
            self._stream.send_data(bytes(self._data[self.sent : self.sent + size]))
            self.sent += size
        if self._end and not self._ended:
            self._ended = True
            self._stream.end()


class Echo(Recorder):
    """A bridge's handler: the request's content comes back as the answer's, under the proxy's credit."""

    def __init__(self, head: RequestHead, stream: Stream) -> None:
        super().__init__()
        self.head = head
        self.stream = stream
        self._held: list[bytes] = []
        self._ended = False
        stream.send_head(OK)

    def on_data(self, data: bytes) -> None:
        super_data = bytes(data)
        self._held.append(super_data)
        self.on_writable()

    def on_writable(self) -> None:
        stream = self.stream
        assert stream is not None
        while self._held:
            size = stream.window
            if size == 0:
                return
            data = self._held.pop(0)
            if len(data) > size:
                self._held.insert(0, data[size:])
                data = data[:size]
            stream.send_data(data)
            stream.consumed(len(data))
        if self._ended:
            stream.end()

    def on_end(self, trailers: Headers) -> None:
        self.trailers = trailers
        self._ended = True
        self.on_writable()


class Front(asyncio.Protocol):
    """Reads an upgrade request and gives the connection to a tunnel server; the path is the bridge's id."""

    def __init__(self, server: TunnelServer) -> None:
        self._server = server
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" in self._seen and self._transport is not None:
            bridge_id = self._seen.split(b" ")[1].decode().strip("/")
            self._server.take_over(self._transport, self._seen, bridge_id)


async def listen(server: TunnelServer) -> tuple[asyncio.Server, int]:
    """Listen on a port of the loopback for bridges."""
    listener = await asyncio.get_running_loop().create_server(lambda: Front(server), "127.0.0.1", 0)
    return listener, int(listener.sockets[0].getsockname()[1])


async def turns(count: int = 12) -> None:
    """Let the loop turn, so that what was sent in memory has arrived."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, looking every few milliseconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of several objects have no event
            await asyncio.sleep(0.005)
