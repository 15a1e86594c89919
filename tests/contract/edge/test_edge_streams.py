"""What an edge does with bodies: passes each chunk on as it comes, both ways, and shows every cut."""

import asyncio
import contextlib

import pytest
from tests.support.edge_doubles import EdgeUnderTest, Message, read_body, read_chunk, read_head

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_ten_chunks_arrive_one_by_one_while_the_next_is_not_made_yet(edge: EdgeUnderTest) -> None:
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        writer.write(CHUNKED)
        for n in range(10):
            writer.write(b"7\r\ntoken %d\r\n" % n)
            # The next is made only once the client has this one: any gathering on the way would stop here.
            assert await asyncio.wait_for(arrived.get(), 10) == n
        writer.write(b"0\r\n\r\n")

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("POST", "/v1/chat/completions", "Content-Length: 2") + b"{}")
    head = await read_head(reader)
    assert head.one("x-accel-buffering") == "no"
    for n in range(10):
        assert await read_chunk(reader) == b"token %d" % n
        arrived.put_nowait(n)
    assert await read_chunk(reader) == b""
    writer.close()


async def test_the_head_arrives_before_any_content(edge: EdgeUnderTest) -> None:
    go = asyncio.Event()

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(CHUNKED)
        await asyncio.wait_for(go.wait(), 10)
        writer.write(b"0\r\n\r\n")

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", "/v1/models"))
    assert (await read_head(reader)).status == 200
    go.set()
    assert await read_chunk(reader) == b""
    writer.close()


async def test_informational_responses_and_trailers_pass(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        assert request.one("trailer:x-up") == "1"
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + CHUNKED)
        writer.write(b"2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n")

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("POST", "/v1/x", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n")
    hints = await read_head(reader)
    assert (hints.status, hints.one("link")) == (103, "</x>")
    answer = await read_head(reader)
    await read_body(reader, answer)
    assert (answer.status, answer.body, answer.one("trailer:x-down")) == (200, b"ok", "2")
    writer.close()


async def test_head_has_the_length_and_no_content(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")

    edge.proxy.script = script
    reader, writer = await edge.connect()
    for _ in range(2):  # on one connection: content would be taken for the next head
        writer.write(edge.head("HEAD", "/ollama/"))
        answer = await read_head(reader)
        assert (answer.status, answer.one("content-length")) == (200, "1234")
    writer.close()


async def test_an_answer_that_only_its_connections_end_delimits_is_framed(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await writer.drain()
        writer.close()

    edge.proxy.script = script
    answer = await edge.get("/v1/models")
    assert (answer.one("transfer-encoding"), answer.body) == ("chunked", b"abc")


async def test_a_large_upload_arrives_whole(edge: EdgeUnderTest) -> None:
    body = bytes(range(256)) * 8192
    reader, writer = await edge.connect()
    writer.write(edge.head("POST", "/v1/x", f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert (await read_head(reader)).status == 100
    writer.write(body)
    answer = await read_head(reader)
    assert answer.status == 200
    assert edge.proxy.requests[0].body == body
    assert edge.proxy.requests[0].one("expect") is None
    writer.close()


async def test_a_stalled_upstream_stops_the_upload(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(30)

    edge.proxy.script = script
    _, writer = await edge.connect()
    writer.write(edge.head("POST", "/v1/x", "Transfer-Encoding: chunked"))
    sent = 0
    stuck = False
    while not stuck and sent < 20_000_000:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        sent += 65536
        try:
            await asyncio.wait_for(writer.drain(), 0.5)
        except TimeoutError:
            stuck = True
    assert stuck, f"expected back-pressure, the edge took {sent} bytes"
    writer.transport.abort()
    await asyncio.wait_for(edge.proxy.stop(), 10)


async def test_a_stalled_reader_stops_the_upstream(edge: EdgeUnderTest) -> None:
    stuck = asyncio.Event()
    sent = 0

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        while sent < 64_000_000:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stuck.set()
                await writer.drain()

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", "/v1/models"))
    await asyncio.wait_for(stuck.wait(), 20)
    assert sent < 32_000_000  # kernel buffers and no more
    with contextlib.suppress(asyncio.LimitOverrunError):
        assert (await read_head(reader)).status == 200
    writer.transport.abort()
    await asyncio.wait_for(edge.proxy.closed.wait(), 10)


@pytest.mark.parametrize("target", ["/v1/x", "/api/streaming/x"])
async def test_a_client_that_leaves_ends_the_request_upstream(edge: EdgeUnderTest, target: str) -> None:
    upstream = edge.proxy if target == "/v1/x" else edge.api
    began = asyncio.Event()
    ended = asyncio.Event()

    async def endless(request: Message, reader: Reader, writer: Writer) -> None:
        if request.target == "/internal/authorize":
            writer.write(edge.api.verdict(request))
            return
        writer.write(CHUNKED)
        began.set()
        with contextlib.suppress(ConnectionResetError):  # if the client left before the head was read
            assert await reader.read() == b""
        ended.set()
        raise ConnectionResetError

    upstream.script = endless
    _, writer = await edge.connect()
    writer.write(edge.head("GET", target))
    await asyncio.wait_for(began.wait(), 10)
    writer.close()
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_client_that_leaves_before_the_head_ends_it_too(edge: EdgeUnderTest) -> None:
    began = asyncio.Event()

    async def silent(request: Message, reader: Reader, writer: Writer) -> None:
        began.set()
        assert await reader.read() == b""
        raise ConnectionResetError

    edge.proxy.script = silent
    _, writer = await edge.connect()
    writer.write(edge.head("GET", "/v1/models"))
    await asyncio.wait_for(began.wait(), 10)
    writer.close()
    await asyncio.wait_for(edge.proxy.closed.wait(), 5)


@pytest.mark.parametrize("head", [CHUNKED + b"3\r\nabc\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
async def test_an_upstream_that_dies_midway_is_a_visible_cut(edge: EdgeUnderTest, head: bytes) -> None:
    async def dying(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(head)
        await writer.drain()
        writer.transport.abort()

    edge.proxy.script = dying
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await edge.get("/v1/models")


async def test_an_upstream_that_dies_before_its_head_is_a_problem(edge: EdgeUnderTest) -> None:
    async def dying(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        writer.transport.abort()

    edge.proxy.script = dying
    answer = await edge.send(edge.head("POST", "/v1/x", "Content-Length: 2") + b"{}")
    assert answer.status in (502, 503)
    assert answer.problem in ("connection-lost", "internal")


async def test_too_large_by_its_length_is_refused_at_once(edge: EdgeUnderTest) -> None:
    answer = await edge.send(edge.head("POST", "/v1/x", "Content-Length: 100000000"))
    assert (answer.status, answer.problem) == (413, "too-large")
    assert edge.proxy.requests == []
    answer = await edge.send(edge.head("POST", "/api/x", "Content-Length: 200000"))
    assert (answer.status, answer.problem) == (413, "too-large")


async def test_too_large_while_it_streams_is_refused_then(edge: EdgeUnderTest) -> None:
    async def devour(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)

    edge.proxy.script = devour
    reader, writer = await edge.connect()
    writer.write(edge.head("POST", "/v1/x", "Transfer-Encoding: chunked"))

    async def pour() -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()

    pouring = asyncio.get_running_loop().create_task(pour())
    answer = await read_head(reader)
    assert answer.status == 413
    await asyncio.wait_for(edge.proxy.closed.wait(), 5)
    writer.transport.abort()
    await asyncio.wait_for(pouring, 10)
