"""One relayed request: head, content, back-pressure, ends and faults on both sides."""

import json
from collections.abc import Iterator

import pytest
from tests.support.edge_memory import MemoryEdge, memory_edge
from tests.support.memory_transport import MemoryTransport, turns

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
STREAMED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = ("POST /v1/x HTTP/1.1", "Content-Length: 6")


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEdge]:
    with memory_edge(monkeypatch, data_body_limit=1000, api_body_limit=100) as made:
        yield made


def parts(data: bytes) -> tuple[int, bytes, bytes]:
    head, _, content = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, content


def problem(data: bytes) -> tuple[int, str]:
    status, head, content = parts(data)
    assert b"content-type: application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head
    return status, json.loads(content)["type"].removeprefix("urn:c2l:problem:")


async def test_there_and_back(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy(*POST, "Authorization: Bearer k", content=b"abcdef")
    line, _, rest = proxy.take().partition(b"\r\n")
    assert line == b"POST /v1/x HTTP/1.1"
    assert rest.endswith(b"\r\n\r\nabcdef")
    assert b"c2l-assertion: v1.ours.mac" in rest
    assert b"Bearer" not in rest
    proxy.peer_sends(OK + b"he", b"llo")
    await turns()
    status, head, content = parts(client.take())
    assert (status, content) == (200, b"hello")
    assert b"x-accel-buffering: no" in head
    assert not client.is_closing()


async def test_each_chunk_leaves_as_it_comes(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(STREAMED)
    client.take()
    for number in range(5):
        proxy.peer_sends(b"2\r\nc%d\r\n" % number)
        assert client.take() == b"2\r\nc%d\r\n" % number
    proxy.peer_sends(b"0\r\nX-Sum: 1\r\n\r\n")
    assert client.take() == b"0\r\nx-sum: 1\r\n\r\n"


async def test_content_waits_until_there_is_an_upstream(edge: MemoryEdge) -> None:
    client = await edge.ask("POST /v1/x HTTP/1.1", "Content-Length: 900", content=b"a" * 100)
    assert not client.is_reading()
    assert edge.proxy.transports == []
    client.peer_sends(b"b" * 100)
    assert client.waiting == 100


async def test_a_slow_client_holds_the_answer_back(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(STREAMED)
    client.take()
    client.fill()
    assert not proxy.is_reading()
    proxy.peer_sends(b"2\r\nab\r\n")
    assert client.take() == b""
    client.empty()
    await turns()
    assert proxy.is_reading()
    assert client.take() == b"2\r\nab\r\n"


async def test_a_slow_upstream_holds_the_content_back(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("POST /v1/x HTTP/1.1", "Transfer-Encoding: chunked")
    proxy.take()
    proxy.fill()
    assert not client.is_reading()
    client.peer_sends(b"3\r\nabc\r\n")
    assert proxy.take() == b""
    proxy.empty()
    await turns()
    assert proxy.take() == b"3\r\nabc\r\n"


async def test_a_client_that_leaves_takes_its_request_along(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(STREAMED)
    client.abort()
    await turns()
    assert proxy.aborted
    proxy.peer_sends(b"2\r\nab\r\n")  # no effect


async def test_a_client_that_leaves_before_the_verdict_asks_no_proxy(edge: MemoryEdge) -> None:
    client = await edge.ask("GET /v1/x HTTP/1.1")
    client.abort()
    await turns(10)
    assert edge.api.last.aborted
    assert edge.proxy.transports == []


async def test_an_upstream_that_breaks_off_before_its_head(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_closes()
    await turns()
    assert problem(client.take()) == (503, "connection-lost")


@pytest.mark.parametrize("head", [STREAMED + b"2\r\nab\r\n", OK + b"he"])
async def test_an_upstream_that_breaks_off_in_the_middle_is_seen_as_cut(edge: MemoryEdge, head: bytes) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(head)
    await turns()
    proxy.peer_closes()
    await turns()
    assert b"0\r\n\r\n" not in client.take()
    assert client.closed.is_set()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01garbage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_never_reaches_the_client(edge: MemoryEdge, garbage: bytes) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(garbage)
    await turns()
    answer = client.take()
    assert problem(answer) == (503, "connection-lost")
    assert garbage[:20] not in answer
    assert proxy.is_closing()


async def test_a_switch_that_was_not_asked_for(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw")
    await turns()
    assert problem(client.take()) == (503, "connection-lost")
    assert proxy.aborted


async def test_informational_answers_pass(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("GET /v1/x HTTP/1.1")
    proxy.peer_sends(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: x\r\n\r\n" + OK + b"hello")
    await turns()
    assert client.take().startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("path", "limit"), [("/v1/x", 1000), ("/api/x", 100)])
async def test_announced_content_over_the_limit_asks_nobody(edge: MemoryEdge, path: str, limit: int) -> None:
    client = await edge.ask(f"POST {path} HTTP/1.1", f"Content-Length: {limit + 1}")
    assert problem(client.take()) == (413, "too-large")
    assert edge.api.transports == edge.proxy.transports == []


async def test_chunked_content_over_the_limit_is_broken_off(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy("POST /v1/x HTTP/1.1", "Transfer-Encoding: chunked")
    for _ in range(3):
        client.peer_sends(b"190\r\n" + b"a" * 400 + b"\r\n")
    await turns()
    assert problem(client.take()) == (413, "too-large")
    assert proxy.aborted


async def test_a_proxy_that_is_gone_is_asked_about_once_more(edge: MemoryEdge) -> None:
    edge.proxy.refusing = 1
    client = await edge.ask(*POST, content=b"abcdef")
    first = edge.api.last
    assert b"c2l-fresh" not in first.take()
    allow(first)
    await turns(10)
    assert edge.api.last is not first
    assert b"c2l-fresh: 1" in edge.api.last.take()
    allow(edge.api.last)
    await turns(10)
    assert edge.proxy.last.take().endswith(b"abcdef")
    edge.proxy.last.peer_sends(OK + b"hello")
    await turns()
    assert parts(client.take())[0] == 200


async def test_a_proxy_that_stays_gone_is_given_up(edge: MemoryEdge) -> None:
    edge.proxy.refusing = 2
    client = await edge.ask(*POST, content=b"abcdef")
    for _ in range(2):
        allow(edge.api.last)
        await turns(10)
    assert problem(client.take()) == (503, "overloaded")


@pytest.mark.parametrize("stated", ["200", "101", "302", "99999", "x"])
async def test_a_refusal_with_a_strange_status_is_still_a_refusal(edge: MemoryEdge, stated: str) -> None:
    client = await edge.ask("GET /v1/x HTTP/1.1")
    fields = f"C2L-Problem: forbidden\r\nC2L-Status: {stated}\r\nContent-Length: 0"
    edge.api.last.peer_sends(f"HTTP/1.1 403 X\r\n{fields}\r\n\r\n".encode())
    await turns(10)
    assert problem(client.take()) == (403, "forbidden")


async def test_an_api_that_breaks_off_is_no_verdict(edge: MemoryEdge) -> None:
    client = await edge.ask("GET /v1/x HTTP/1.1")
    for _ in range(2):  # another replica is asked, once
        edge.api.last.peer_sends(b"HTTP/1.1 200 OK\r\nC2L-Endpoint: unix:/x\r\n")
        edge.api.last.peer_closes()
        await turns(10)
    assert problem(client.take()) == (503, "overloaded")
    assert len(edge.api.transports) == 2
    assert edge.proxy.transports == []


async def test_an_upgrade_is_spliced_with_what_came_early(edge: MemoryEdge) -> None:
    client, proxy = await edge.ask_proxy(
        "GET /ws/tunnel HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", content=b"early"
    )
    assert b"upgrade: websocket" in proxy.take()
    proxy.peer_sends(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
    await turns()
    head, _, rest = client.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest == b"first"
    assert proxy.take() == b"early"
    client.abort()
    await turns()
    assert proxy.is_closing()


@pytest.mark.parametrize("offered", ["h2c", "TLS/1.0", "h2c, websocket", "x" * 100])
async def test_an_upgrade_to_anything_else_is_ignored(edge: MemoryEdge, offered: str) -> None:
    """Java's HTTP client offers h2c with every request in clear; RFC 9110 §7.8 lets a server ignore it."""
    client, proxy = await edge.ask_proxy(
        "GET /v1/models HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings",
        f"Upgrade: {offered}",
        "HTTP2-Settings: AAMA",
    )
    sent = proxy.take().lower()
    assert b"upgrade" not in sent
    assert b"http2-settings" not in sent
    proxy.peer_sends(OK + b"hello")
    await turns()
    assert parts(client.take())[0] == 200


def allow(transport: MemoryTransport) -> None:
    transport.peer_sends(
        b"HTTP/1.1 200 OK\r\nC2L-Endpoint: unix:/proxy\r\nC2L-Assertion: v1.ours.mac\r\nContent-Length: 0\r\n\r\n"
    )
