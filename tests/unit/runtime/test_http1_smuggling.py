"""Every shape that two parsers could read in two ways is refused, whatever llhttp tolerates."""

import json

import pytest
from tests.support.http1_recorders import RecordingServer
from tests.support.memory_transport import turns
from tests.support.smuggling_shapes import SHAPES, TE, H, P

from cloudtolocalllm.runtime.http1 import HttpLimits
from cloudtolocalllm.runtime.http1.messages import CHUNKED


@pytest.mark.parametrize(("data", "status"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
@pytest.mark.parametrize("piece", [100_000, 1000, 7], ids=["whole", "in pieces", "in small pieces"])
async def test_shape_is_refused_and_the_connection_closed(data: bytes, status: int, piece: int) -> None:
    app = RecordingServer(HttpLimits(max_fields=100))
    transport = app.connect()
    transport.peer_sends(*(data[i : i + piece] for i in range(0, len(data), piece)))
    answer = transport.take()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"content-type: application/problem+json" in head
    assert b"x-frame-options: DENY" in head
    document = json.loads(content)
    assert document["status"] == status
    assert "evil" not in content.decode()
    assert transport.eof_written
    for call in app.calls:  # only where the head was fine and the content was not
        assert ("end", ()) not in call.events
        assert call.events[-1] == "disconnect"
    transport.peer_sends(b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    await turns()
    assert all(call.request.path != "/smuggled" for call in app.calls)


async def test_bad_content_after_the_response_began_cuts_it() -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(P + H + TE + b"\r\n")
    app.calls[0].responder.start(200, (), CHUNKED)
    transport.peer_sends(b"zzz\r\n")
    await turns()
    assert transport.aborted
    assert app.calls[0].events == ["disconnect"]


GOOD = [
    ("absolute form", b"GET http://H:80/a?b HTTP/1.1\r\nHost: h:80\r\n\r\n", "/a?b"),
    ("absolute form without a path", b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", "/"),
    ("an IPv6 host", b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "/"),
    ("an empty line before", b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "/"),
    ("latin-1 in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: caf\xe9\r\n\r\n", "/"),
    ("a value with a tab", b"GET / HTTP/1.1\r\nHost: h\r\nX:\ta\tb\t\r\n\r\n", "/"),
    ("odd characters in a query", b'GET /?{"a"}|b HTTP/1.1\r\nHost: h\r\n\r\n', '/?{"a"}|b'),
    ("1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", "/"),
    (
        "a tiny chunked body",
        P + H + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n",
        "/",
    ),
    ("an empty length", P + H + b"Content-Length: 0\r\n\r\n", "/"),
]


@pytest.mark.parametrize(("data", "target"), [s[1:] for s in GOOD], ids=[s[0] for s in GOOD])
async def test_shape_is_served(data: bytes, target: str) -> None:
    app = RecordingServer()
    transport = app.connect()
    transport.peer_sends(*(data[i : i + 100] for i in range(0, len(data), 100)))
    assert transport.take() == b""
    assert [call.request.target for call in app.calls] == [target]
    assert app.calls[0].events[-1] == ("end", ())
