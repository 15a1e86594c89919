"""The fault proxy breaks what it is told to, and nothing else."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
from tests.support.fault_proxy import FaultProxy


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.open = 0
        self.received = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    server = Echo()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
    await listener.wait_closed()


@pytest.fixture
async def fault(echo: Echo) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


async def until(condition: object, within: float = 5) -> None:
    deadline = time.monotonic() + within
    while not condition():  # type: ignore[operator] # a callable; kept short for the tests
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_bytes_pass_unchanged_in_small_segments(fault: FaultProxy) -> None:
    fault.up.segment, fault.down.segment = 7, 13
    data = os.urandom(20_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    writer.close()
    await until(lambda: fault.connections == 0)


async def test_a_reset_is_seen_as_one_on_both_sides(fault: FaultProxy, echo: Echo) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert fault.cut("rst") == 1
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    await until(lambda: echo.open == 0)
    writer.close()


async def test_an_orderly_end_is_seen_as_one(fault: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    fault.cut("fin")
    assert await reader.read() == b""
    writer.close()


async def test_latency_delays_and_keeps_the_order(fault: FaultProxy) -> None:
    fault.up.latency, fault.up.jitter = 0.1, 0.05
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    began = time.monotonic()
    for i in range(20):
        writer.write(bytes([i]))
        await asyncio.sleep(0.001)
    assert await reader.readexactly(20) == bytes(range(20))
    assert time.monotonic() - began >= 0.1
    writer.close()


async def test_merged_segments_arrive_together(fault: FaultProxy) -> None:
    fault.down.merge = 0.2
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    for i in range(5):
        writer.write(bytes([i]))
        await asyncio.sleep(0.01)
    assert await reader.read(100) == bytes(range(5))
    writer.close()


async def test_a_blackhole_swallows_and_a_stall_only_holds(fault: FaultProxy, echo: Echo) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    fault.up.blackhole = True
    writer.write(b"lost")
    await asyncio.sleep(0.1)
    fault.up.blackhole = False
    fault.up.stalled = True
    await asyncio.sleep(0.02)
    writer.write(b"k")  # the read that was under way when the stall began may still take it
    writer.write(b"ept")
    await asyncio.sleep(0.1)
    fault.up.stalled = False
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"kept"
    assert echo.received == 5
    writer.close()


async def test_a_cut_on_one_side_lets_late_bytes_arrive_on_the_other(fault: FaultProxy, echo: Echo) -> None:
    fault.up.latency = 0.3
    _, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    writer.write(b"late")
    await until(lambda: fault.connections == 1)
    await asyncio.sleep(0.05)
    fault.cut("rst", "client")
    await asyncio.sleep(0.05)
    assert echo.received == 0
    await until(lambda: echo.received == 4)
    assert echo.open == 1
    fault.release()
    await until(lambda: echo.open == 0)
    writer.close()


async def test_refused_connections_end_at_once(fault: FaultProxy, echo: Echo) -> None:
    fault.refusing = True
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert echo.open == 0
    writer.close()


async def test_throttling_bounds_the_rate(fault: FaultProxy) -> None:
    fault.down.bytes_per_second, fault.down.segment = 10_000, 500
    reader, writer = await asyncio.open_connection("127.0.0.1", fault.port)
    began = time.monotonic()
    writer.write(b"x" * 3000)
    await reader.readexactly(3000)
    assert time.monotonic() - began > 0.2
    writer.close()
