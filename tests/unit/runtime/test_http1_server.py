"""The server's protocol on a transport in memory."""

import asyncio
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.http1_recorders import RecordingServer
from tests.support.memory_transport import turns, until

from cloudtolocalllm.runtime.http1 import Body, BodyKind, HttpLimits, LocalError
from cloudtolocalllm.runtime.http1.messages import CHUNKED, NO_BODY

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED_POST = (
    b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    b"5;ext=1\r\nhello\r\n6\r\n\r\n\r\n\r\n\r\n1\r\n!\r\n0\r\nX-Sum: 12 \r\nX-Empty:\r\n\r\n"
)
LENGTH_POST = b"POST /len HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nnine\r\n\r\n9"


def head_of(data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, dict(f.split(b": ", 1) for f in fields), rest


async def test_a_request_and_its_whole_response_in_one_write() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    call = app.calls[0]
    assert (call.request.method, call.request.target, call.request.path) == ("GET", "/a?b=c", "/a")
    assert call.request.headers == ((b"host", b"h"),)
    assert call.request.body == NO_BODY
    assert call.request.raw_head == GET
    assert call.events == [("end", ())]
    assert call.responder.peer == "192.0.2.1"
    call.responder.respond(200, ((b"content-type", b"text/plain"),), b"hi")
    assert len(transport.writes) == 1
    line, fields, body = head_of(transport.take())
    assert line == b"HTTP/1.1 200 OK"
    assert fields[b"content-length"] == b"2"
    assert fields[b"date"].endswith(b"GMT")
    assert b"connection" not in fields
    assert body == b"hi"
    assert not transport.is_closing()


async def test_framing_fields_of_the_application_are_not_taken() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[0].responder.start(200, ((b"content-length", b"99"), (b"transfer-encoding", b"gzip")), CHUNKED)
    _, fields, _ = head_of(transport.take())
    assert fields[b"transfer-encoding"] == b"chunked"
    assert b"content-length" not in fields


async def test_chunked_response_with_trailers() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    responder = app.calls[0].responder
    responder.inform(103, ((b"link", b"</x>"),))
    assert transport.take() == b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    responder.start(200, (), CHUNKED)
    transport.take()
    responder.write(b"abc")
    responder.write(b"")
    responder.write(b"x" * 20_000)
    responder.end(((b"x-sum", b"1"), (b"content-length", b"3")))
    assert transport.take() == b"3\r\nabc\r\n4e20\r\n" + b"x" * 20_000 + b"\r\n0\r\nx-sum: 1\r\n\r\n"
    assert not transport.is_closing()


async def test_pipelined_requests_are_served_one_at_a_time_in_order() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" + CHUNKED_POST + b"\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert [call.request.path for call in app.calls] == ["/1"]
    assert not transport.is_reading()
    app.calls[0].responder.respond(200, (), b"1")
    await turns()
    assert [call.request.path for call in app.calls] == ["/1", "/up"]
    assert not transport.is_reading()
    app.calls[1].responder.respond(200, (), b"2")
    await turns()
    assert [call.request.path for call in app.calls] == ["/1", "/up", "/3"]
    assert transport.is_reading()
    app.calls[2].responder.respond(200, (), b"3")
    assert [part[-1:] for part in transport.take().split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"3"]


async def test_reading_goes_on_while_a_response_is_under_way_so_that_leaving_is_seen() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[0].responder.start(200, (), CHUNKED)
    assert transport.reading
    transport.peer_closes()
    await turns()
    assert app.calls[0].events == [("end", ()), "disconnect"]
    app.calls[0].responder.write(b"late")  # without effect, not an error
    app.calls[0].responder.end()
    assert app.server.connections == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(CHUNKED_POST + LENGTH_POST + GET)), max_size=12))
async def test_any_chunking_gives_the_same_requests(cuts: list[int]) -> None:
    data = CHUNKED_POST + LENGTH_POST + GET
    places = sorted({0, *cuts, len(data)})
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(*(data[a:b] for a, b in itertools.pairwise(places)))
    seen = []
    for index in range(3):
        await turns(16)
        call = app.calls[index]
        seen.append((call.request.path, bytes(call.body), call.events))
        call.responder.respond(200, (), b"")
    assert seen == [
        ("/up", b"hello\r\n\r\n\r\n!", ["body", ("end", ((b"x-sum", b"12"), (b"x-empty", b"")))]),
        ("/len", b"nine\r\n\r\n9", ["body", ("end", ())]),
        ("/a", b"", [("end", ())]),
    ]
    assert transport.take().count(b"HTTP/1.1 200 OK\r\n") == 3
    assert not transport.is_closing()


async def test_byte_by_byte_gives_the_same_too() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(*(bytes((byte,)) for byte in CHUNKED_POST))
    assert bytes(app.calls[0].body) == b"hello\r\n\r\n\r\n!"
    assert app.calls[0].events[-1] == ("end", ((b"x-sum", b"12"), (b"x-empty", b"")))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
async def test_garbage_is_answered_or_waited_for_and_never_raises(garbage: bytes, after_a_head: bool) -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" if after_a_head else b"") + garbage
    )
    await turns()
    answer = transport.take()
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))


async def test_pausing_the_body_stops_reading_and_keeps_what_was_read() -> None:
    app = RecordingServer()
    app.pause_at_start = True
    transport = app.connect()
    transport.peer_sends(LENGTH_POST[:-5])
    call = app.calls[0]
    assert call.events == []
    assert not transport.reading
    transport.peer_sends(LENGTH_POST[-5:])
    assert transport.waiting == 5
    call.responder.resume_body()
    assert call.events == []  # not from within the call
    await turns()
    assert bytes(call.body) == b"nine\r\n\r\n9"
    assert call.events[-1] == ("end", ())
    assert transport.reading


async def test_expect_continue_is_sent_once_the_body_is_wanted() -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n"
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(request)
    assert transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    transport.peer_sends(b"ok")
    app.calls[0].responder.respond(200, (), b"")
    assert not transport.is_closing()

    app = RecordingServer()
    app.pause_at_start = True
    transport = app.connect()
    transport.peer_sends(request)
    assert transport.take() == b""
    app.calls[0].responder.resume_body()
    app.calls[0].responder.resume_body()
    assert transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"

    app = RecordingServer()
    app.pause_at_start = True
    transport = app.connect()
    transport.peer_sends(request)
    app.calls[0].responder.respond(413, (), b"")
    line, fields, _ = head_of(transport.take())
    assert line.startswith(b"HTTP/1.1 413")
    assert fields[b"connection"] == b"close"  # the content may come or not: the two sides would disagree


async def test_head_204_and_304_have_no_content() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET.replace(b"GET", b"HEAD"))
    responder = app.calls[0].responder
    responder.start(200, (), Body(BodyKind.LENGTH, 10))
    responder.write(b"abc")
    responder.end()
    _, fields, rest = head_of(transport.take())
    assert (fields[b"content-length"], rest) == (b"10", b"")

    transport.peer_sends(GET.replace(b"GET", b"HEAD"))
    app.calls[1].responder.start(200, ((b"content-length", b"77"),), NO_BODY)
    app.calls[1].responder.end()
    _, fields, rest = head_of(transport.take())
    assert (fields[b"content-length"], rest) == (b"77", b"")

    transport.peer_sends(GET)
    app.calls[2].responder.respond(204, ((b"content-length", b"3"),), b"")
    _, fields, rest = head_of(transport.take())
    assert b"content-length" not in fields
    assert rest == b""

    transport.peer_sends(GET)
    app.calls[3].responder.start(304, ((b"etag", b'"x"'),), NO_BODY)
    app.calls[3].responder.end()
    _, fields, rest = head_of(transport.take())
    assert (fields[b"etag"], rest) == (b'"x"', b"")
    assert not transport.is_closing()


async def test_http_1_0_gets_neither_chunks_nor_informational_responses() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(b"GET / HTTP/1.0\r\n\r\n")
    responder = app.calls[0].responder
    responder.inform(103, ())
    responder.start(200, (), CHUNKED)
    responder.write(b"abc")
    responder.end(((b"x", b"y"),))
    _, fields, rest = head_of(transport.take())
    assert b"transfer-encoding" not in fields
    assert fields[b"connection"] == b"close"
    assert rest == b"abc"
    await asyncio.wait_for(transport.closed.wait(), 5)
    assert not transport.aborted


async def test_a_body_shorter_or_longer_than_announced_is_cut_and_raises() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[0].responder.start(200, (), Body(BodyKind.LENGTH, 3))
    with pytest.raises(LocalError, match="at most 3 more bytes"):
        app.calls[0].responder.write(b"four")
    assert transport.is_closing()

    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[1].responder.start(200, (), Body(BodyKind.LENGTH, 3))
    app.calls[1].responder.write(b"ab")
    with pytest.raises(LocalError, match="1 more bytes"):
        app.calls[1].responder.end()
    assert transport.is_closing()


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nb", b"a\rb", b"a\0b"])
async def test_fields_that_would_split_the_response_are_refused(value: bytes) -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    with pytest.raises(LocalError, match="without line ends"):
        app.calls[0].responder.respond(200, ((b"x", value),), b"")
    assert transport.take() == b""


async def test_abort_shows_that_the_response_was_cut() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[0].responder.start(200, (), CHUNKED)
    app.calls[0].responder.write(b"abc")
    app.calls[0].responder.abort()
    assert transport.take().endswith(b"3\r\nabc\r\n")  # what was sent still arrives, the last chunk never
    assert transport.is_closing()
    await turns()
    assert "disconnect" not in app.calls[0].events

    transport = app.connect()
    transport.peer_sends(b"GET / HTTP/1.0\r\n\r\n")
    app.calls[1].responder.start(200, (), CHUNKED)
    app.calls[1].responder.abort()
    assert transport.aborted  # the connection's end would be a clean one


async def test_an_early_response_to_a_short_body_keeps_the_connection() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(LENGTH_POST[:-4])
    app.calls[0].responder.respond(400, (), b"no")
    assert b"connection: close" not in transport.take()
    transport.peer_sends(LENGTH_POST[-4:], GET)
    assert [call.request.path for call in app.calls] == ["/len", "/a"]
    assert app.calls[0].events == ["body"]


async def test_an_early_response_to_a_long_body_closes_but_lets_the_client_read_it() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1000)
    app.calls[0].responder.respond(413, (), b"no")
    assert b"connection: close" in transport.take()
    assert transport.eof_written
    transport.peer_sends(b"x" * 100_000, b"x" * 100_000)
    assert not transport.is_closing()
    transport.peer_sends(*[b"x" * 1_000_000] * 17)
    assert transport.aborted


async def test_writable_is_passed_on_and_holds_the_next_request_back() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(GET)
    transport.fill()
    app.calls[0].responder.respond(200, (), b"")
    transport.peer_sends(GET)
    await turns()
    assert len(app.calls) == 1
    assert not transport.reading
    transport.empty()
    await turns()
    assert len(app.calls) == 2
    assert ("writable", False) in app.calls[0].events
    transport.fill()
    transport.empty()
    assert app.calls[1].events == [("end", ()), ("writable", False), ("writable", True)]
    assert transport.reading


async def test_hijack_hands_the_transport_over_with_the_bytes_behind_the_head() -> None:
    upgrade = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(upgrade + b"early")
    call = app.calls[0]
    assert call.request.upgrade == "websocket"
    assert call.request.raw_head == upgrade
    taken, rest = call.responder.hijack()
    assert taken is transport
    assert rest == b"early"
    assert transport.reading
    assert app.server.connections == 0
    with pytest.raises(LocalError):
        call.responder.hijack()

    transport = app.connect()
    transport.peer_sends(GET)
    with pytest.raises(LocalError, match="upgrade request"):
        app.calls[1].responder.hijack()


async def test_an_upgrade_with_content_is_an_ordinary_request() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" + GET
    )
    assert app.calls[0].request.upgrade is None
    assert bytes(app.calls[0].body) == b"abc"
    app.calls[0].responder.respond(200, (), b"")
    await turns()
    assert len(app.calls) == 2


async def test_a_slow_head_is_answered_408_and_an_idle_connection_is_closed() -> None:
    app = RecordingServer(HttpLimits(head_timeout=0.02, idle_timeout=0.02))
    slow, idle = app.connect(), app.connect()
    slow.peer_sends(b"GET / HT")
    await asyncio.wait_for(idle.closed.wait(), 5)
    assert idle.take() == b""
    await until(lambda: slow.eof_written)
    assert slow.take().startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_stops_coming_is_given_up_but_not_while_it_is_paused() -> None:
    app = RecordingServer(HttpLimits(body_timeout=0.02))
    stalled, paused = app.connect(), app.connect()
    paused.peer_sends(LENGTH_POST[:-4])
    app.calls[0].responder.pause_body()
    stalled.peer_sends(LENGTH_POST[:-4])
    await until(lambda: stalled.eof_written)
    assert stalled.take().startswith(b"HTTP/1.1 408 ")
    assert app.calls[1].events == ["body", "disconnect"]
    assert paused.take() == b""
    assert app.calls[0].events == ["body"]


async def test_a_client_that_reads_nothing_is_aborted() -> None:
    app = RecordingServer(HttpLimits(write_timeout=0.02))
    transport = app.connect()
    transport.peer_sends(GET)
    app.calls[0].responder.start(200, (), CHUNKED)
    transport.fill()
    await asyncio.wait_for(transport.closed.wait(), 5)
    assert transport.aborted
    assert app.calls[0].events[-1] == "disconnect"


async def test_a_failing_application_gives_500_and_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    app = RecordingServer()

    def fail(*_: object) -> object:
        raise RuntimeError("secret detail")

    app.server.app = fail  # type: ignore[assignment] # a faulty application is the point
    transport = app.connect()
    transport.peer_sends(GET)
    answer = transport.take()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "urn:c2l:problem:internal"
    assert "secret detail" in caplog.text


async def test_close_drains() -> None:
    app = RecordingServer()
    idle, busy = app.connect(), app.connect()
    busy.peer_sends(GET)
    closing = asyncio.get_running_loop().create_task(app.server.close(5))
    await turns()
    assert idle.is_closing()
    assert not busy.is_closing()
    app.calls[0].responder.respond(200, (), b"done")
    assert b"connection: close" in busy.take()
    await asyncio.wait_for(closing, 5)
    assert app.server.connections == 0

    app = RecordingServer()
    stuck = app.connect()
    stuck.peer_sends(GET)
    await asyncio.wait_for(app.server.close(0.01), 5)
    assert stuck.aborted
    assert app.calls[0].events[-1] == "disconnect"
