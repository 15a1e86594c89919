"""Exact bytes to the edge, and what comes back until the connection ends."""

import asyncio
import json
from dataclasses import dataclass

from tests.support.stack import Stack

DEADLINE = 15.0


@dataclass(frozen=True)
class Answer:
    """Everything that came on one connection."""

    data: bytes

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def count(self) -> int:
        """How many answers there are, had a second request been seen."""
        return self.data.count(b"HTTP/1.1 ")

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0].lower()

    @property
    def content(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def problem(self) -> str:
        assert b"content-type: application/problem+json" in self.head
        value = json.loads(self.content)
        assert value["status"] == self.status
        return str(value["type"]).removeprefix("urn:c2l:problem:")


async def send(stack: Stack, data: bytes) -> Answer:
    """Send bytes on a new connection and read until the edge closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    return await _finish(reader, writer, data)


async def send_to_socket(path: str, data: bytes) -> Answer:
    """Send bytes to a Unix socket and read until it is closed."""
    reader, writer = await asyncio.open_unix_connection(path)
    return await _finish(reader, writer, data)


async def _finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> Answer:
    received = b""
    try:
        writer.write(data)
        async with asyncio.timeout(DEADLINE):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError:
        pass  # closed while we still sent
    finally:
        writer.close()
    return Answer(received)


def request(stack: Stack, target: str, *fields: str, method: str = "GET") -> bytes:
    """Return a request with the owner's key, after which the edge closes."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{stack.port}", f"Authorization: Bearer {stack.api_key}"]
    return "\r\n".join([*lines, *fields, "Connection: close", "", ""]).encode("latin-1")


async def works(stack: Stack) -> None:
    """A normal request goes through edge, proxy, tunnel and bridge."""
    answer = await send(stack, request(stack, "/v1/models"))
    assert answer.status == 200
    assert b"demo:latest" in answer.content
