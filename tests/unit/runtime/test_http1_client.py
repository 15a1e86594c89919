"""The client's protocol on a transport in memory."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.http1_recorders import ClientCall
from tests.support.memory_transport import MemoryTransport, turns

from cloudtolocalllm.runtime.http1 import (
    BadResponseError,
    Body,
    BodyKind,
    Connection,
    Exchange,
    HttpLimits,
    LocalError,
    Pool,
)
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY

HOST = ((b"host", b"h"),)
CHUNKED_RESPONSE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b \r\n\r\n"
    b"5\r\nhello\r\n6;x\r\n\r\n\r\n\r\n\r\n0\r\nX-Sum: 11\r\n\r\n"
)


def connect(limits: HttpLimits | None = None) -> tuple[Connection, MemoryTransport]:
    connection = Connection(limits)
    return connection, MemoryTransport(connection)


def get(connection: Connection, method: str = "GET") -> tuple[ClientCall, Exchange]:
    call = ClientCall()
    exchange = connection.request(method, "/a?b", HOST, NO_BODY, call)
    exchange.end()
    return call, exchange


async def test_a_request_with_content_both_ways() -> None:
    connection, transport = connect()
    call = ClientCall()
    exchange = connection.request("POST", "/up", (*HOST, (b"content-length", b"99")), Body(BodyKind.LENGTH, 4), call)
    exchange.write(b"ab")
    exchange.write(b"cd")
    exchange.end()
    assert transport.take() == b"POST /up HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nabcd"
    assert not connection.reusable
    transport.peer_sends(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
    assert (call.status, bytes(call.body), call.trailers) == (201, b"ok", ())
    assert call.framing == Body(BodyKind.LENGTH, 2)
    assert connection.reusable


async def test_chunked_requests_with_trailers() -> None:
    connection, transport = connect()
    exchange = connection.request("POST", "/", HOST, CHUNKED, ClientCall())
    exchange.write(b"abc")
    exchange.end(((b"x-t", b"1"),))
    assert transport.take().endswith(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n")
    with pytest.raises(LocalError, match="after the end"):
        exchange.write(b"more")


async def test_a_post_without_content_says_so() -> None:
    connection, transport = connect()
    connection.request("POST", "/", HOST, NO_BODY, ClientCall()).end()
    assert b"content-length: 0\r\n" in transport.take()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(CHUNKED_RESPONSE)), max_size=12))
async def test_any_chunking_gives_the_same_response(cuts: list[int]) -> None:
    places = sorted({0, *cuts, len(CHUNKED_RESPONSE)})
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(*(CHUNKED_RESPONSE[a:b] for a, b in itertools.pairwise(places)))
    assert call.error is None
    assert call.informational == [(103, ((b"link", b"</x>"),))]
    assert call.status == 200
    assert call.headers == ((b"transfer-encoding", b"chunked"), (b"x-a", b"b"))
    assert bytes(call.body) == b"hello\r\n\r\n\r\n"
    assert call.trailers == ((b"x-sum", b"11"),)
    assert connection.reusable


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED_RESPONSE[:-30]]))
async def test_garbage_gives_documented_errors_only(garbage: bytes, before: bytes) -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(before + garbage)
    transport.peer_closes()
    await turns()
    assert call.trailers is not None or isinstance(call.error, BadResponseError)
    assert not connection.reusable


@pytest.mark.parametrize("head", [b"200 OK\r\nContent-Length: 9", b"204 No Content", b"304 Not Modified\r\nETag: x"])
async def test_responses_without_content(head: bytes) -> None:
    connection, transport = connect()
    call, _ = get(connection, "HEAD" if head.startswith(b"200") else "GET")
    transport.peer_sends(b"HTTP/1.1 " + head + b"\r\n\r\n")
    assert call.framing == NO_BODY
    assert call.trailers == ()
    assert connection.reusable


async def test_content_that_the_end_of_the_connection_delimits() -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def")
    assert call.framing == Body(BodyKind.UNTIL_CLOSE)
    assert not call.ended
    transport.peer_closes()
    assert bytes(call.body) == b"abcdef"
    assert call.trailers == ()
    await turns()
    assert call.error is None
    assert not connection.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nConte",
        b"",
    ],
)
async def test_a_response_cut_short_is_an_error_and_never_an_end(data: bytes) -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(data)
    transport.peer_closes()
    await turns()
    assert isinstance(call.error, BadResponseError)
    assert not call.error.retryable
    assert call.trailers is None


async def test_only_a_reused_connection_closed_before_any_byte_is_retryable() -> None:
    connection, transport = connect()
    get(connection)
    transport.peer_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
    call, _ = get(connection)
    transport.peer_closes()
    await turns()
    assert isinstance(call.error, BadResponseError)
    assert call.error.retryable


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 20_000 + b"\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_malformed_responses(data: bytes) -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(data)
    assert isinstance(call.error, BadResponseError)
    assert transport.aborted


async def test_more_than_was_asked_for_closes() -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert call.trailers == ()
    assert not connection.reusable
    connection, transport = connect()
    transport.peer_sends(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert transport.is_closing()


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: x, Close"])
async def test_close_is_honoured(field: bytes) -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.peer_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + field + b"\r\n\r\n")
    assert call.trailers == ()
    assert transport.is_closing()


async def test_a_response_before_the_request_has_ended_costs_the_connection() -> None:
    connection, transport = connect()
    call = ClientCall()
    exchange = connection.request("POST", "/", HOST, CHUNKED, call)
    transport.peer_sends(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert call.trailers == ()
    assert transport.is_closing()
    exchange.write(b"late")  # without effect
    exchange.end()


async def test_pause_and_resume() -> None:
    connection, transport = connect()
    call = ClientCall()
    exchange = connection.request("GET", "/", HOST, NO_BODY, call)
    exchange.end()
    exchange.pause_body()
    assert not transport.reading
    transport.peer_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    assert call.status == 0
    exchange.resume_body()
    await turns()
    assert bytes(call.body) == b"abc"
    assert connection.reusable


async def test_pausing_in_on_head_keeps_the_content_that_came_with_it() -> None:
    connection, transport = connect()

    class Pausing(ClientCall):
        def on_head(self, status: int, headers: object, body: Body) -> None:
            exchange.pause_body()

    call = Pausing()
    exchange = connection.request("GET", "/", HOST, NO_BODY, call)
    exchange.end()
    transport.peer_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    assert bytes(call.body) == b""
    assert not transport.reading
    exchange.resume_body()
    await turns()
    assert bytes(call.body) == b"abc"
    assert call.trailers == ()


async def test_writable_is_passed_on() -> None:
    connection, transport = connect()
    call, _ = get(connection)
    transport.fill()
    transport.empty()
    assert call.writable == [False, True]


async def test_abort_calls_nothing_more() -> None:
    connection, transport = connect()
    call, exchange = get(connection)
    exchange.abort()
    assert transport.aborted
    await turns()
    assert call.error is None


async def test_takeover_after_101() -> None:
    connection, transport = connect()
    headers = (*HOST, (b"connection", b"upgrade"), (b"upgrade", b"websocket"))
    call = ClientCall()
    exchange = connection.request("GET", "/ws", headers, NO_BODY, call)
    exchange.end()
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in transport.take()
    _, too_early = get(connect()[0])
    with pytest.raises(LocalError, match="switched"):
        too_early.takeover()
    transport.peer_sends(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00"
    )
    assert call.status == 101
    assert not transport.is_reading()
    taken, rest = exchange.takeover()
    assert taken is transport
    assert rest == b"\x81\x00"
    assert transport.reading
    assert not connection.reusable


async def test_a_failing_handler_costs_its_exchange_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ClientCall):
        def on_body(self, data: bytes) -> None:
            raise RuntimeError("broken")

    connection, transport = connect()
    call = Failing()
    connection.request("GET", "/", HOST, NO_BODY, call).end()
    transport.peer_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    assert isinstance(call.error, BadResponseError)
    assert transport.aborted
    assert "broken" in caplog.text


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/a b"), ("GET", "/a\r\nX: y"), ("G T", "/"), ("GET", "/\u00e9"), ("GET", "/\x00")]
)
async def test_a_head_that_would_split_is_refused(method: str, target: str) -> None:
    connection, transport = connect()
    with pytest.raises(LocalError):
        connection.request(method, target, HOST, NO_BODY, ClientCall())
    with pytest.raises(LocalError):
        connection.request("GET", "/", ((b"host", b"h\r\nx: y"),), NO_BODY, ClientCall())
    assert transport.take() == b""


async def test_content_other_than_announced_is_refused() -> None:
    connection, transport = connect()
    exchange = connection.request("POST", "/", HOST, Body(BodyKind.LENGTH, 2), ClientCall())
    with pytest.raises(LocalError, match="at most 2"):
        exchange.write(b"abc")
    assert transport.aborted
    connection, transport = connect()
    exchange = connection.request("POST", "/", HOST, Body(BodyKind.LENGTH, 2), ClientCall())
    with pytest.raises(LocalError, match="2 more"):
        exchange.end()


def test_a_pool_wants_an_endpoint() -> None:
    with pytest.raises(ValueError, match="unix:/path"):
        Pool("nonsense")
