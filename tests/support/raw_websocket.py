"""A WebSocket client that sends exact bytes, right or wrong, and reads strictly (RFC 6455)."""

import asyncio
import base64
import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from tests.support.edge_doubles import Message, read_head

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"
"""As in RFC 6455 §5.7."""
DEADLINE = 8.0


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    form: int | None = None,
    length: int | None = None,
) -> bytes:
    """Return one frame.

    Args:
        opcode: 0 to 15.
        payload: Before masking.
        fin: Whether it ends its message.
        rsv: The three reserved bits as a number of 0 to 7, RSV1 being 4.
        mask: None for a frame without, as only servers send.
        form: 7, 16 or 64: the length's form; None for the shortest.
        length: What the header claims; None for the truth.
    """
    size = len(payload) if length is None else length
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    bit = 0x80 if mask is not None else 0
    first = bytes(((0x80 if fin else 0) | rsv << 4 | opcode,))
    if form == 7:
        head = first + bytes((bit | size,))
    elif form == 16:
        head = first + bytes((bit | 126,)) + struct.pack(">H", size)
    else:
        head = first + bytes((bit | 127,)) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if any(mask) else payload
    return head + mask + masked


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a CLOSE frame; None for one without a code."""
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


@dataclass(frozen=True)
class Frame:
    """A frame as a server sent it."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """A CLOSE's code; None when it has none."""
        return struct.unpack(">H", self.payload[:2])[0] if self.payload else None


@dataclass
class RawWebSocket:
    """One connection after its handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upgrade: Message
    """The server's answer to the upgrade."""

    @classmethod
    async def over(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: str,
        protocol: str,
        headers: Mapping[str, str | None],
    ) -> Self:
        """Ask for an upgrade; `headers` replaces fields by lower-case name, None leaves one out."""
        key = base64.b64encode(os.urandom(16)).decode()
        fields: dict[str, str | None] = {
            "host": "127.0.0.1:8080",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": key,
            "sec-websocket-protocol": protocol,
            **headers,
        }
        lines = [
            f"GET {target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items() if value is not None),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await read_head(reader)
        if answer.status == 101:
            digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()  # RFC 6455 §4.2.2
            assert answer.one("sec-websocket-accept") == base64.b64encode(digest).decode()
        return cls(reader, writer, answer)

    def send(self, *frames: bytes) -> None:
        """Send bytes in one piece."""
        self.writer.write(b"".join(frames))

    async def dribble(self, data: bytes) -> None:
        """Send bytes one by one, each in a packet of its own."""
        for at in range(len(data)):
            self.writer.write(data[at : at + 1])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def receive(self) -> Frame | None:
        """Return the next frame; None when the server has ended the connection."""
        async with asyncio.timeout(DEADLINE):
            try:
                first, second = await self.reader.readexactly(2)
                assert first & 0x70 == 0, "a reserved bit is set"
                assert second & 0x80 == 0, "a server's frame is masked"
                size = second & 0x7F
                if size == 126:
                    (size,) = struct.unpack(">H", await self.reader.readexactly(2))
                    assert size > 125, "the length is not in its shortest form"
                elif size == 127:
                    (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
                    assert size > 65535, "the length is not in its shortest form"
                opcode = first & 0x0F
                assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
                if opcode >= CLOSE:
                    assert first & 0x80, "a control frame is fragmented"
                    assert size <= 125, "a control frame is too long"
                return Frame(opcode, await self.reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def answers(self, *, reply: bool = True) -> list[Frame]:
        """Return every control frame until the server ends the connection.

        Args:
            reply: Whether to answer a CLOSE, as a client must.
        """
        found: list[Frame] = []
        while (got := await self.receive()) is not None:
            if got.opcode >= CLOSE:
                found.append(got)
            if got.opcode == CLOSE and reply:
                self.send(close(got.code))
        return found

    async def alive(self, payload: bytes = b"still there?") -> None:
        """Show that the connection works: a ping is answered, and nothing else of its kind comes before."""
        self.send(frame(PING, payload))
        while (got := await self.receive()) is not None:
            if got.opcode >= CLOSE:
                assert got == Frame(PONG, payload)
                return
        raise AssertionError("the connection was ended")
