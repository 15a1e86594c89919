"""One answer that streams through a proxy which a driver made, from a bridge to a client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.link_parts import until
from tests.support.proxy_rig import Client, Home, assertion

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.link import DialTarget, Stream, StreamHandler, TunnelClient
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.tunnel import RequestHead, ResponseHead


class LiveStream:
    """Bytes sent at home and read at the client, one message at a time."""

    def __init__(self, home: Home, reader: asyncio.StreamReader) -> None:
        self._home = home
        self._reader = reader
        self._count = 0

    async def exchange(self) -> None:
        """Send a message through, and check that it arrives unaltered."""
        self._count += 1
        message = b"message %d" % self._count
        self._home.stream.send_data(message)
        async with asyncio.timeout(5):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            assert await self._reader.readexactly(size + 2) == message + b"\r\n"

    async def finish(self) -> None:
        """End the answer, and check that the client sees a proper end."""
        self._home.stream.end()
        async with asyncio.timeout(5):
            assert await self._reader.readuntil(b"\r\n\r\n") == b"0\r\n\r\n"


@contextlib.asynccontextmanager
async def live_stream(door: Endpoint, spec: InstanceSpec, user: str) -> AsyncIterator[LiveStream]:
    """A stream through a proxy.

    Args:
        door: The proxy's TCP address, or that of a way to it.
        spec: What the proxy was made of.
        user: Whose it is.
    """
    key = bytes.fromhex(spec.key)
    homes: list[Home] = []

    async def target() -> DialTarget:
        token = assertion(kind="bridge", bridges=(), subject="home", key=key, instance=spec.id, user=user)
        return DialTarget(f"ws://{door}/ws/tunnel", {"C2L-Assertion": token})

    def accept(head: RequestHead, stream: Stream) -> StreamHandler:
        home = Home(head, stream)
        homes.append(home)
        stream.send_head(ResponseHead(200, ((b"content-type", b"text/event-stream"),)))
        return home

    bridge = asyncio.get_running_loop().create_task(TunnelClient(target, accept).run())
    reader, writer = await asyncio.open_connection(door.host, door.port)
    try:
        client = Client(reader, writer)
        client.send(body=b"{}", token=assertion(key=key, instance=spec.id, user=user))
        status, _ = await client.head()
        assert status == 200
        await until(lambda: bool(homes))
        yield LiveStream(homes[0], reader)
    finally:
        writer.close()
        bridge.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await bridge
