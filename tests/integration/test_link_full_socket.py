"""Frames that wait for a full socket leave as they were made."""

import asyncio
import socket
import struct

import pytest
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from cloudtolocalllm.link.wire import WebSocketWire, hand_over, server_protocol

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SIZES = [60_000, 20_000, 9_000, 100, 65_000, 10, 8_193, 30_000, 70_000, 8_192]


async def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(5):
        while len(data) < size:
            data += await asyncio.get_running_loop().sock_recv(sock, 65_536)
    return data


@pytest.mark.parametrize("times", [1, 5])
async def test_many_frames_in_one_turn(times: int) -> None:
    """picows gives a view of one buffer for every header: a frame that is kept must not see the next one's."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
    wire = WebSocketWire(None)

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), wire)

    hand_over(transport, server_protocol(accept), UPGRADE)
    sizes = SIZES * times
    messages = [bytes((number % 256,)) * size for number, size in enumerate(sizes)]
    for message in messages:
        wire.send(message)
    expected = b"".join(header(size) + message for size, message in zip(sizes, messages, strict=True))
    head = await received(theirs, 1)
    while b"\r\n\r\n" not in head:
        head += await received(theirs, 1)
    data = head.partition(b"\r\n\r\n")[2]
    data += await received(theirs, len(expected) - len(data))
    assert data == expected
    wire.abort()
    theirs.close()
    await asyncio.sleep(0)


def header(size: int) -> bytes:
    """Return the header of a whole unmasked binary frame (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((0x82, size))
    return b"\x82\x7e" + struct.pack(">H", size) if size < 65_536 else b"\x82\x7f" + struct.pack(">Q", size)
