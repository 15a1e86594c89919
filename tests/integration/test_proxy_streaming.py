"""Requests through a real proxy and a real tunnel, streamed both ways."""

import asyncio
import json
import os
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.link_parts import Sender, until
from tests.support.proxy_rig import Home, ProxyRig, Reply, proxy_rig

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.tunnel import Headers, Limits, ResetReason, ResponseHead

CONTENT = random.Random(3).randbytes(1_500_000)
EVENTS = ((b"content-type", b"text/event-stream"),)


@pytest.fixture
async def rig() -> AsyncIterator[ProxyRig]:
    async with proxy_rig() as rig:
        await rig.bridge()
        yield rig


class EchoHome(Home):
    """Answers with the request's content once it is complete."""

    def on_end(self, trailers: Headers) -> None:
        super().on_end(trailers)
        self.stream.send_head(ResponseHead(200, ((b"content-length", str(len(self.data)).encode()),)))
        self._sender = Sender(self.stream, bytes(self.data))
        self.pump = self._sender.pump
        self.pump()


async def test_an_answer_comes_chunk_for_chunk(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(body=b'{"stream": true}')
    home = await rig.home()
    await asyncio.wait_for(home.done.wait(), 5)
    assert bytes(home.data) == b'{"stream": true}'
    home.stream.send_head(ResponseHead(200, EVENTS))
    status, headers = await client.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    chunks = client.chunks("POST", Reply(status, headers, b""))
    for number in range(10):  # each is read before the next is sent: nothing is held back to be joined
        home.stream.send_data(b"data: %d\n\n" % number)
        assert await asyncio.wait_for(anext(chunks), 5) == b"data: %d\n\n" % number
    home.stream.end()
    assert [chunk async for chunk in chunks] == []


async def test_heads_cross_without_the_clouds_fields(rig: ProxyRig) -> None:
    client = await rig.client()
    rig.on_request = lambda home: home.answer(201, ((b"x-engine", b"yes"),), b"hi")
    client.send(
        headers=[("Authorization", "Bearer secret"), ("C2L-Exchange-Id", "named-by-the-client"), ("X-Mine", "1")],
        body=b"{}",
    )
    reply = await client.reply()
    assert (reply.status, reply.body) == (201, b"hi")
    assert reply.headers["x-engine"] == "yes"
    assert reply.headers["c2l-exchange-id"] == "named-by-the-client"
    home = rig.homes[0]
    assert (home.head.method, home.head.target) == ("POST", "/v1/chat/completions")
    assert home.field(b"x-mine") == b"1"
    assert home.field(b"c2l-exchange-id") == b"named-by-the-client"
    assert home.field(b"c2l-request-id") == b"req-1"
    for name in (b"authorization", b"host", b"c2l-assertion"):
        assert home.field(name) is None


async def test_informational_heads_and_trailers_pass(rig: ProxyRig) -> None:
    def answer(home: Home) -> None:
        home.stream.send_head(ResponseHead(103, ((b"link", b"</a>; rel=preload"),)))
        home.answer(200, EVENTS, b"data", ((b"x-checksum", b"42"),))

    rig.on_request = answer
    client = await rig.client()
    client.send(body=b"{}")
    reply = await client.reply()
    assert [(status, headers["link"]) for status, headers in reply.informational] == [(103, "</a>; rel=preload")]
    assert (reply.body, reply.trailers) == (b"data", {"x-checksum": "42"})


async def test_expect_continue_is_answered_once_a_bridge_has_the_request(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(headers=[("Expect", "100-continue"), ("Content-Length", "4")])
    assert (await client.head())[0] == 100
    client.writer.write(b"body")
    home = await rig.home()
    await asyncio.wait_for(home.done.wait(), 5)
    assert bytes(home.data) == b"body"
    assert home.field(b"expect") is None
    home.answer(204)
    assert (await client.reply()).status == 204


@pytest.mark.parametrize(
    ("method", "status", "sent", "length"),
    [
        ("HEAD", 200, (b"content-length", b"123"), "123"),
        ("GET", 204, None, None),
        ("GET", 304, (b"content-length", b"77"), "77"),
        ("GET", 200, (b"content-length", b"0"), "0"),
    ],
)
async def test_answers_without_content_keep_the_connection(
    rig: ProxyRig, method: str, status: int, sent: tuple[bytes, bytes] | None, length: str | None
) -> None:
    rig.on_request = lambda home: home.answer(status, () if sent is None else (sent,))
    client = await rig.client()
    for _ in range(2):  # the second shows that the first was framed right
        client.send(method, "/v1/models")
        reply = await client.reply(method)
        assert (reply.status, reply.headers.get("content-length"), reply.body) == (status, length, b"")


async def test_uploads_with_a_length_and_chunked_ones_arrive_whole(rig: ProxyRig) -> None:
    rig.make = EchoHome
    client = await rig.client()
    client.send(body=CONTENT)
    assert (await client.reply()).body == CONTENT
    client.send(headers=[("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
    for at in range(0, len(CONTENT), 50_000):
        piece = CONTENT[at : at + 50_000]
        client.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.writer.drain()
    client.writer.write(b"0\r\nX-Sum: 7\r\n\r\n")
    assert (await client.reply()).body == CONTENT
    first, second = rig.homes
    assert first.field(b"content-length") == str(len(CONTENT)).encode()
    assert second.field(b"content-length") is None
    assert second.field(b"transfer-encoding") is None
    assert second.trailers == ((b"x-sum", b"7"),)


async def test_an_upload_that_the_engine_does_not_read_is_not_read_from_the_client(rig: ProxyRig) -> None:
    rig.on_request = lambda home: setattr(home, "granting", False)
    client = await rig.client()
    client.send(headers=[("Content-Length", str(64 * 1024 * 1024))])
    client.writer.transport.set_write_buffer_limits(high=0)
    piece, sent = bytes(256 * 1024), 0
    home = await rig.home()
    try:
        while sent < 64 * 1024 * 1024:
            client.writer.write(piece)
            sent += len(piece)
            await asyncio.wait_for(client.writer.drain(), 1)
    except TimeoutError:
        pass
    assert len(home.data) == Limits().window
    assert sent < 16 * 1024 * 1024, "the kernel's buffers and one window"
    home.answer(413)
    await until(lambda: rig.proxy.stats.in_flight == 0)


async def test_a_client_that_leaves_cancels_at_the_bridge(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(body=b"{}")
    home = await rig.home()
    home.stream.send_head(ResponseHead(200, EVENTS))
    home.stream.send_data(b"data: 1\n\n")
    await client.head()
    client.close()
    await asyncio.wait_for(home.done.wait(), 5)
    await until(lambda: home.reset is not None)
    assert home.reset is not None
    assert home.reset[0] is ResetReason.CANCELLED
    await until(lambda: rig.proxy.stats.in_flight == 0)


async def test_a_client_that_leaves_before_the_answer_cancels_too(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(body=b"{}")
    home = await rig.home()
    client.close()
    await until(lambda: home.reset is not None)
    assert home.reset is not None
    assert home.reset[0] is ResetReason.CANCELLED


@pytest.mark.parametrize("content_length", [False, True])
async def test_cuts_of_the_tunnel_do_not_show_in_the_answer(content_length: bool) -> None:
    async with proxy_rig() as rig:
        network = await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}")
        home = await rig.home()
        headers: Headers = ((b"content-length", str(len(CONTENT)).encode()),) if content_length else EVENTS
        home.stream.send_head(ResponseHead(200, headers))
        sender = Sender(home.stream, CONTENT, chunk=3000)
        home.pump = sender.pump
        reading = asyncio.get_running_loop().create_task(client.reply())
        network.up.bytes_per_second = 20_000_000
        sender.pump()
        for _ in range(10):
            await asyncio.sleep(0.03)
            network.cut()
        reply = await asyncio.wait_for(reading, 20)
        assert not reply.cut
        assert reply.body == CONTENT
        assert rig.proxy.tunnels.tunnels("home")[0].epoch > 1


async def test_sixteen_connections_with_many_small_requests(rig: ProxyRig) -> None:
    def answer(home: Home) -> None:
        home.answer(200, ((b"content-type", b"application/json"),), b'{"n":' + (home.field(b"x-n") or b"") + b"}")

    rig.on_request = answer

    async def one(number: int) -> None:
        client = await rig.client()
        for turn in range(10):
            client.send(headers=[("X-N", f"{number}{turn}")], body=b"{}")
            reply = await client.reply()
            assert (reply.status, reply.body) == (200, b'{"n":%d%d}' % (number, turn))

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(one(number))
    await until(lambda: rig.proxy.stats.in_flight == 0)
    assert rig.proxy.stats.streams_total == 160
    assert rig.proxy.tunnels.tunnels("home")[0].open_streams == 0


async def test_a_client_that_reads_nothing_costs_a_bounded_amount(rig: ProxyRig) -> None:
    class Gush(Home):
        produced = 0

        def on_writable(self) -> None:
            while size := self.stream.window:
                Gush.produced += size
                self.stream.send_data(bytes(size))

        def on_end(self, trailers: Headers) -> None:
            self.stream.send_head(ResponseHead(200, EVENTS))
            self.on_writable()

    rig.make = Gush
    client = await rig.client()
    client.reader._limit = 1  # type: ignore[attr-defined] # the stream's own buffer: reads nothing ahead
    before = psutil.Process(os.getpid()).memory_info().rss
    client.send(body=b"{}")
    await rig.home()
    level = -1
    while level != Gush.produced:  # until it stands still
        level = Gush.produced
        await asyncio.sleep(0.3)
    assert level > Limits().window
    assert level < 8 * 1024 * 1024, "the kernel's socket buffers, the connection's buffer and one window"
    growth = psutil.Process(os.getpid()).memory_info().rss - before
    assert growth < 8 * 1024 * 1024
    # Another client of the same tunnel is not held up.
    rig.make = EchoHome
    other = await rig.client()
    other.send(body=b"hello")
    assert (await other.reply()).body == b"hello"
    client.close()
    await until(lambda: rig.proxy.stats.in_flight == 0)


async def test_it_all_works_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="c2l") as folder:
        path = f"{folder}/p.sock"
        async with proxy_rig(listen=Endpoint(path=path)) as rig:
            relay = await unix_relay(path)
            rig.endpoint = Endpoint(host="127.0.0.1", port=relay.sockets[0].getsockname()[1])
            await rig.bridge()
            rig.endpoint = Endpoint(path=path)
            rig.on_request = lambda home: home.answer(200, EVENTS, b"over a socket file")
            client = await rig.client()
            client.send(body=b"{}")
            assert (await client.reply()).body == b"over a socket file"
            relay.close()
        assert not await asyncio.to_thread(Path(path).exists)


async def unix_relay(path: str) -> asyncio.Server:
    """Splices TCP connections to a Unix socket, as the edge does."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    return await asyncio.start_server(splice, "127.0.0.1", 0)


async def test_the_manager_sees_real_activity(rig: ProxyRig) -> None:
    assert json.loads((await rig.manager("/healthz")).body) == {"status": "ok"}
    client = await rig.client()
    client.send(body=b"12345")
    home = await rig.home()
    stats = json.loads((await rig.manager("/stats")).body)
    assert (stats["in_flight"], stats["bridges"]) == (1, ["home"])
    home.answer(200, EVENTS, b"123")
    await client.reply()
    await until(lambda: rig.proxy.stats.in_flight == 0)
    stats = json.loads((await rig.manager("/stats")).body)
    assert (stats["in_flight"], stats["streams_total"], stats["bytes_up"], stats["bytes_down"]) == (0, 1, 5, 3)
    assert stats["started"] <= stats["last_activity"]
