"""Every shape that two parsers could read in two ways is refused, whatever llhttp tolerates."""

import json

import pytest
from tests.support.http1_recorders import RecordingServer
from tests.support.memory_transport import turns

from cloudtolocalllm.runtime.http1 import HttpLimits
from cloudtolocalllm.runtime.http1.messages import CHUNKED

P = b"POST / HTTP/1.1\r\n"
H = b"Host: h\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
SHAPES = [
    ("both framings", P + H + b"Content-Length: 4\r\n" + TE + b"\r\n0\r\n\r\n", 400),
    ("both framings, other order", P + H + TE + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
    ("two equal lengths", P + H + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
    ("two different lengths", P + H + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
    ("a list of lengths", P + H + b"Content-Length: 4, 4\r\n\r\nabcd", 400),
    ("a signed length", P + H + b"Content-Length: +4\r\n\r\nabcd", 400),
    ("a negative length", P + H + b"Content-Length: -4\r\n\r\nabcd", 400),
    ("a hexadecimal length", P + H + b"Content-Length: 0x4\r\n\r\nabcd", 400),
    ("an empty length", P + H + b"Content-Length:\r\n\r\nabcd", 400),
    ("a length with an underscore", P + H + b"Content-Length: 1_0\r\n\r\nabcd", 400),
    ("a length beyond 64 bits", P + H + b"Content-Length: 18446744073709551617\r\n\r\nabcd", 400),
    ("an unknown coding", P + H + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("chunked and another", P + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    ("chunked twice", P + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("chunked in two fields", P + H + TE + TE + b"\r\n", 400),
    ("a look-alike coding", P + H + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    ("a quoted coding", P + H + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    ("a vertical tab before the coding", P + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("identity", P + H + b"Transfer-Encoding: identity\r\n\r\n", 400),
    ("chunked in 1.0", b"POST / HTTP/1.0\r\n" + H + TE + b"\r\n0\r\n\r\n", 400),
    ("space before the colon", P + H + b"Transfer-Encoding : chunked\r\n\r\n", 400),
    ("tab before the colon", P + H + b"Content-Length\t: 4\r\n\r\nabcd", 400),
    ("space before the name", P + H + b" Content-Length: 4\r\n\r\nabcd", 400),
    ("obs-fold", P + H + b"X: a\r\n b\r\n\r\n", 400),
    ("obs-fold with a tab", P + H + b"X: a\r\n\tb\r\n\r\n", 400),
    ("obs-fold of the coding", P + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n", 400),
    ("obs-fold of the first field", P + b" X: y\r\n" + H + b"\r\n", 400),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
    ("bare LF after a field", P + H + b"X: y\nContent-Length: 4\r\n\r\n", 400),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: h\n\n", 400),
    ("bare CR in a value", P + H + b"X: a\rContent-Length: 4\r\n\r\n", 400),
    ("bare CR in the request line", b"GET /\r HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("NUL in a value", P + H + b"X: a\0b\r\n\r\n", 400),
    ("NUL in a name", P + H + b"X\0: a\r\n\r\n", 400),
    ("control character in a value", P + H + b"X: a\x01b\r\n\r\n", 400),
    ("DEL in a value", P + H + b"X: a\x7fb\r\n\r\n", 400),
    ("no colon", P + H + b"Content-Length 4\r\n\r\n", 400),
    ("an empty name", P + H + b": x\r\n\r\n", 400),
    ("a name that is not ASCII", P + H + b"X\xe9: x\r\n\r\n", 400),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    ("two Hosts in 1.0", b"GET / HTTP/1.0\r\n" + H + b"Host: i\r\n\r\n", 400),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("a list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a Host with user information", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("absolute form for another host", b"GET http://evil/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form with user information", b"GET http://u@h/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form of another scheme", b"GET file://h/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("authority form", b"CONNECT h:443 HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("a relative target", b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("a fragment", b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("a target that is not ASCII", b"GET /\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("a tab in the target", b"GET /\ta HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("a space in the target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("space after the version", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    ("no version", b"GET /\r\n" + H + b"\r\n", 400),
    ("version 0.9", b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    ("version 1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    ("version 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("version 1.10", b"GET / HTTP/1.10\r\n" + H + b"\r\n", 505),
    ("lower-case version", b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    ("an unknown method", b"BREW / HTTP/1.1\r\n" + H + b"\r\n", 501),
    ("a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400),
    ("an unknown expectation", P + H + b"Content-Length: 1\r\nExpect: gold\r\n\r\n", 417),
    ("a long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    ("a target without end", b"GET /" + b"a" * 40_000, 414),
    ("a large head", b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    ("a head without end", b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 40_000, 431),
    ("many fields", b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n" * 100 + b"\r\n", 431),
    ("chunk size that is none", P + H + TE + b"\r\nxyz\r\n", 400),
    ("chunk size 0x", P + H + TE + b"\r\n0x3\r\nabc\r\n", 400),
    ("chunk size with a sign", P + H + TE + b"\r\n+3\r\nabc\r\n", 400),
    ("chunk size beyond 64 bits", P + H + TE + b"\r\nfffffffffffffffff\r\nabc\r\n", 400),
    ("chunk size with bare LF", P + H + TE + b"\r\n3\nabc\r\n0\r\n\r\n", 400),
    ("chunk data with bare LF", P + H + TE + b"\r\n3\r\nabc\n0\r\n\r\n", 400),
    ("chunk data too long", P + H + TE + b"\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    ("chunk extension with bare LF", P + H + TE + b"\r\n3;a\nabc\r\n0\r\n\r\n", 400),
    ("last chunk with bare LF", P + H + TE + b"\r\n0\r\n\n", 400),
    ("trailer that frames", P + H + TE + b"\r\n0\r\nContent-Length: 3\r\n\r\n", 400),
    ("trailer that codes", P + H + TE + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("trailer that routes", P + H + TE + b"\r\n0\r\nHost: evil\r\n\r\n", 400),
    ("trailer that upgrades", P + H + TE + b"\r\n0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 400),
    ("trailer with obs-fold", P + H + TE + b"\r\n0\r\nX: y\r\n z\r\n\r\n", 400),
    ("a chunk extension bomb", P + H + TE + b"\r\n1;" + b"a" * 20_000 + b"\r\nx\r\n0\r\n\r\n", 400),
    (
        "many chunk extensions",
        P + H + TE + b"\r\n" + b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 4000,
        400,
    ),
    ("large trailers", P + H + TE + b"\r\n0\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400),
    ("many trailers", P + H + TE + b"\r\n0\r\n" + b"X: y\r\n" * 101 + b"\r\n", 400),
]


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
