"""`/e2e/{bridge id}`: what only the home can open passes every edge as bytes, at once, both ways, and is no page."""

import asyncio
import contextlib
import gzip
from pathlib import Path

import pytest
from tests.contract.edge.conftest import EdgeMaker
from tests.contract.edge.test_edge_admission import check_security, verdict
from tests.contract.edge.test_edge_cors import ALLOWED, check_shared
from tests.support.edge_doubles import EdgeUnderTest, Message, allowed, read_body, read_chunk, read_head

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
TARGET = "/e2e/k2qxv7hd4m3a"
REQUEST_TYPE = "Content-Type: message/ohttp-chunked-req"
RESPONSE_TYPE = "message/ohttp-chunked-res"
SEALED = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: no-store\r\n" % RESPONSE_TYPE.encode()
CHUNKED = SEALED + b"Transfer-Encoding: chunked\r\n\r\n"
EVERY_BYTE = bytes(range(256)) * 64 + b"\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


async def test_bytes_pass_unchanged_both_ways(edge: EdgeUnderTest) -> None:
    async def echo(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        writer.write(SEALED + b"Content-Length: %d\r\n\r\n" % len(request.body) + request.body)

    edge.proxy.script = echo
    head = edge.head("POST", TARGET, REQUEST_TYPE, f"Content-Length: {len(EVERY_BYTE)}", "Accept-Encoding: gzip, br")
    answer = await edge.send(head + EVERY_BYTE)
    assert (answer.status, answer.body) == (200, EVERY_BYTE)
    assert (answer.one("content-type"), answer.one("cache-control")) == (RESPONSE_TYPE, "no-store")
    assert (answer.one("content-encoding"), answer.one("x-accel-buffering")) == (None, "no")
    check_security(answer)
    (request,) = edge.proxy.requests
    assert (request.body, request.one("content-type")) == (EVERY_BYTE, "message/ohttp-chunked-req")
    assert request.one("content-encoding") is None


async def test_a_coding_that_the_home_chose_is_left_alone(edge: EdgeUnderTest) -> None:
    """An edge that unpacked or packed anew would change what is authenticated."""
    packed = gzip.compress(EVERY_BYTE)

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(SEALED + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    edge.proxy.script = script
    answer = await edge.get(TARGET)
    assert (answer.one("content-encoding"), answer.body) == ("gzip", packed)


async def test_small_chunks_go_up_and_come_down_one_by_one(edge: EdgeUnderTest) -> None:
    """Each is sent only when the one before has come back: whatever gathers them stops here."""

    async def echo(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(CHUNKED)
        while data := await read_chunk(reader):
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")

    edge.proxy.script = echo
    reader, writer = await edge.connect()
    writer.write(edge.head("POST", TARGET, REQUEST_TYPE, "Transfer-Encoding: chunked"))
    for number in range(10):
        writer.write(b"2\r\n\xff%b\r\n" % bytes((number,)))
        if number == 0:
            assert (await read_head(reader)).one("content-type") == RESPONSE_TYPE
        assert await read_chunk(reader) == b"\xff%b" % bytes((number,))
    writer.write(b"0\r\n\r\n")
    assert await read_chunk(reader) == b""
    writer.close()


async def test_a_client_that_leaves_is_noticed_at_once(edge: EdgeUnderTest) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        writer.write(CHUNKED + b"3\r\nabc\r\n")
        began.set()
        assert await reader.read() == b""
        ended.set()
        raise ConnectionResetError

    edge.proxy.script = endless
    _, writer = await edge.connect()
    writer.write(edge.head("POST", TARGET, REQUEST_TYPE, "Content-Length: 1") + b"\0")
    await asyncio.wait_for(began.wait(), 10)
    writer.close()
    await asyncio.wait_for(ended.wait(), 5)


async def test_an_answer_that_breaks_off_does_not_end_well(edge: EdgeUnderTest) -> None:
    async def dying(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(CHUNKED + b"3\r\nabc\r\n")
        await writer.drain()
        writer.transport.abort()

    edge.proxy.script = dying
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await edge.get(TARGET)


async def test_credentials_and_cookies_end_here_and_none_are_set(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(SEALED + b"Set-Cookie: a=b\r\nClear-Site-Data: *\r\nAlt-Svc: clear\r\nContent-Length: 0\r\n\r\n")

    edge.proxy.script = script
    fields = ("Authorization: Bearer k", "X-Api-Key: k", "Cookie: c2l_session=s; a=b", "C2L-Assertion: forged")
    answer = await edge.send(edge.head("POST", TARGET, *fields, "C2L-Request: 1", "Content-Length: 0"))
    (question,), (request,) = edge.api.questions, edge.proxy.requests
    assert [question.one(name) for name in ("authorization", "x-api-key", "cookie", "c2l-request")] == [
        *("Bearer k", "k", "c2l_session=s; a=b", "1")
    ]
    assert (question.one("x-original-method"), question.one("x-original-uri")) == ("POST", TARGET)
    assert [request.one(name) for name in ("authorization", "x-api-key", "cookie")] == [None] * 3
    assert request.one("c2l-assertion") == "v1.claims.mac"
    assert [answer.one(name) for name in ("set-cookie", "clear-site-data", "alt-svc")] == [None] * 3


REFUSALS = [
    (verdict(401, "C2L-Status: 401", "C2L-Problem: unauthenticated", "C2L-Detail: No."), 401, "unauthenticated"),
    (verdict(403, "C2L-Status: 403", "C2L-Problem: key-scope", "C2L-Detail: No."), 403, "key-scope"),
    (verdict(403, "C2L-Status: 404", "C2L-Problem: not-found", "C2L-Detail: No."), 404, "not-found"),
    (verdict(403, "C2L-Status: 503", "C2L-Problem: bridge-offline", "C2L-Detail: No."), 503, "bridge-offline"),
]


@pytest.mark.parametrize(("given", "status", "problem"), REFUSALS, ids=[problem for _, _, problem in REFUSALS])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_clouds_refusals_are_problems_in_the_clear(
    edge: EdgeUnderTest, given: bytes, status: int, problem: str, method: str
) -> None:
    edge.api.verdict = lambda _: given
    content = b"" if method == "GET" else EVERY_BYTE
    head = edge.head(method, TARGET, REQUEST_TYPE, "Accept: text/html", f"Content-Length: {len(content)}")
    answer = await edge.send(head + content)
    assert (answer.status, answer.problem) == (status, problem)
    assert edge.proxy.requests == []
    check_security(answer)


async def test_a_problem_of_the_home_passes_as_it_is(edge: EdgeUnderTest) -> None:
    document = b'{"type": "https://iana.org/assignments/http-problem-types#ohttp-key", "title": "key", "status": 400}'

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        fields = b"Content-Type: application/problem+json\r\nContent-Length: %d" % len(document)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n" + fields + b"\r\n\r\n" + document)

    edge.proxy.script = script
    answer = await edge.send(edge.head("POST", TARGET, REQUEST_TYPE, "Content-Length: 1") + b"\0")
    assert (answer.status, answer.body) == (400, document)


async def test_a_proxy_that_is_gone_is_asked_about_once_more_with_the_same_bytes(
    edge: EdgeUnderTest, folder: Path
) -> None:
    dead = folder / "dead.sock"
    edge.api.verdict = lambda question: allowed(edge.proxy.path if question.one("c2l-fresh") else dead)
    head = edge.head("POST", TARGET, REQUEST_TYPE, f"Content-Length: {len(EVERY_BYTE)}")
    assert (await edge.send(head + EVERY_BYTE)).status == 200
    assert [request.body for request in edge.proxy.requests] == [EVERY_BYTE]


async def test_what_is_larger_than_the_data_path_takes_is_refused(make_edge: EdgeMaker) -> None:
    async with make_edge(body_limit=100_000) as edge:
        answer = await edge.send(edge.head("POST", TARGET, REQUEST_TYPE, "Content-Length: 100001"))
        assert (answer.status, answer.problem) == (413, "too-large")
        whole = bytes(100_000)
        sent = edge.head("POST", TARGET, REQUEST_TYPE, "Content-Length: 100000") + whole
        assert (await edge.send(sent)).status == 200
        assert [request.body for request in edge.proxy.requests] == [whole]


async def test_what_grows_too_large_on_the_way_is_refused_then(make_edge: EdgeMaker) -> None:
    async def devour(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)

    async with make_edge(body_limit=300_000) as edge:
        edge.proxy.script = devour
        reader, writer = await edge.connect()
        writer.write(edge.head("POST", TARGET, REQUEST_TYPE, "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(8):
                writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                await writer.drain()
        assert (await read_head(reader)).status == 413
        writer.transport.abort()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
async def test_a_foreign_page_is_refused(edge: EdgeUnderTest, origin: str) -> None:
    answer = await edge.get(TARGET, f"Origin: {origin}", "Cookie: c2l_session=s", "C2L-Request: 1")
    assert (answer.status, answer.problem) == (403, "forbidden")
    assert edge.api.questions == edge.proxy.requests == []


async def test_a_page_that_the_owner_allows_may_ask_with_a_key(make_edge: EdgeMaker) -> None:
    async with make_edge(cors_origins=ALLOWED) as edge:
        asked = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type,x-api-key")
        preflight = await edge.get(TARGET, f"Origin: {ALLOWED}", *asked, method="OPTIONS")
        assert (preflight.status, preflight.one("access-control-allow-headers")) == (204, "content-type,x-api-key")
        fields = (f"Origin: {ALLOWED}", REQUEST_TYPE, "X-Api-Key: k", "Cookie: c2l_session=s", "Content-Length: 1")
        answer = await edge.send(edge.head("POST", TARGET, *fields) + b"\0")
        assert answer.status == 200
        check_shared(answer)
        (question,) = edge.api.questions
        assert (question.one("cookie"), question.one("x-api-key")) == (None, "k")


async def test_the_data_paths_rate_holds(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"data": "1/h burst 2", "static": "1000/s burst 1000"}) as edge:
        answers = [await edge.get(TARGET) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[-1].problem == "rate-limited"


@pytest.mark.parametrize("target", [TARGET, "/e2e/", "/e2e/x/y", "/e2e/app-1a2b.js", f"{TARGET}?page"])
async def test_it_is_never_the_page(edge: EdgeUnderTest, target: str) -> None:
    """What a service worker or a browser asks as a page is no other request here."""
    fields = ("Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    answer = await edge.get(target, *fields)
    assert (answer.status, answer.body) == (200, target.encode())
    assert [question.one("x-original-uri") for question in edge.api.questions] == [target]


@pytest.mark.parametrize("target", ["/e2e/../v1/models", "/e2e/%2e%2e/v1/models", "/e2e//x", "/e2e/a%2fb"])
async def test_no_second_reading_of_a_path(edge: EdgeUnderTest, target: str) -> None:
    answer = await edge.get(target)
    assert (answer.status, answer.problem) == (400, "bad-request")
    assert edge.api.questions == edge.proxy.requests == []
