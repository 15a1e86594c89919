"""Upgrades: passed on with what they need, then bytes pass both ways."""

import asyncio

import pytest
from tests.support.edge_doubles import EdgeUnderTest, Message, allowed, read_head

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
UPGRADE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: c2l-tunnel.v1",
)


async def echo(request: Message, reader: Reader, writer: Writer) -> None:
    """Switch and send back what comes; the first bytes come with the head."""
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: c2l-tunnel.v1\r\n\r\nfirst"
    )
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


@pytest.mark.parametrize("target", ["/ws/tunnel", "/ws/bridge", "/ws/events"])
async def test_echo(edge: EdgeUnderTest, target: str) -> None:
    upstream = edge.proxy if target == "/ws/tunnel" else edge.api

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        if request.target == "/internal/authorize":
            edge.api.questions.append(request)
            writer.write(edge.api.verdict(request))
        else:
            await echo(request, reader, writer)

    upstream.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", target, *UPGRADE, "Authorization: Bearer c2l-bridge"))
    answer = await read_head(reader)
    assert answer.status == 101
    assert answer.one("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer.one("sec-websocket-protocol") == "c2l-tunnel.v1"
    assert (answer.one("upgrade") or "").lower() == "websocket"
    assert "upgrade" in (answer.one("connection") or "").lower()
    assert await reader.readexactly(5) == b"first"
    body = bytes(range(256)) * 4096
    writer.write(body)
    assert await asyncio.wait_for(reader.readexactly(len(body)), 10) == body
    request = upstream.requests[-1]
    assert request.one("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="
    if target == "/ws/tunnel":
        assert request.one("c2l-assertion") == "v1.claims.mac"
        assert request.one("authorization") is None
        assert edge.api.questions[0].one("authorization") == "Bearer c2l-bridge"
        assert edge.api.questions[0].one("x-original-uri") == "/ws/tunnel"
    else:
        assert request.one("authorization") == "Bearer c2l-bridge"
    writer.close()
    await asyncio.wait_for(upstream.closed.wait(), 5)


async def test_the_clients_end_follows_the_upstreams(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast words"
        )
        await writer.drain()
        writer.close()

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", "/ws/tunnel", *UPGRADE))
    await read_head(reader)
    assert await asyncio.wait_for(reader.read(), 5) == b"last words"
    writer.close()


async def test_back_pressure_through_the_splice(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", "/ws/tunnel", *UPGRADE))
    await read_head(reader)
    sent, stuck = 0, False
    while not stuck and sent < 32_000_000:
        writer.write(b"x" * 65536)
        sent += 65536
        try:
            await asyncio.wait_for(writer.drain(), 0.5)
        except TimeoutError:
            stuck = True
    assert stuck
    writer.transport.abort()
    await asyncio.wait_for(edge.proxy.stop(), 10)


async def test_a_refused_upgrade_is_an_ordinary_answer(edge: EdgeUnderTest) -> None:
    edge.api.verdict = lambda _: (
        b"HTTP/1.1 401 Unauthorized\r\nC2L-Problem: unauthenticated\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await edge.get("/ws/tunnel", *UPGRADE)
    assert (answer.status, answer.problem) == (401, "unauthenticated")
    assert edge.proxy.requests == []


async def test_a_bridges_proof_and_its_nonce_pass(edge: EdgeUnderTest) -> None:
    edge.api.verdict = lambda _: (
        b"HTTP/1.1 401 Unauthorized\r\nC2L-Problem: unauthenticated\r\nC2L-DPoP-Nonce: n1\r\n"
        b'WWW-Authenticate: DPoP error="use_dpop_nonce"\r\nContent-Length: 0\r\n\r\n'
    )
    sent = ("Authorization: DPoP credential", "DPoP: proof", "C2L-DPoP-Nonce: forged")
    answer = await edge.get("/ws/tunnel", *UPGRADE, *sent)
    assert (answer.status, answer.one("dpop-nonce")) == (401, "n1")
    assert answer.one("www-authenticate") == 'DPoP error="use_dpop_nonce"'
    question = edge.api.questions[0]
    assert (question.one("authorization"), question.one("dpop")) == ("DPoP credential", "proof")
    assert "forged" not in str(question.fields)
    edge.api.verdict = lambda _: allowed(edge.proxy.path)
    await edge.get("/ws/tunnel", *UPGRADE, *sent)
    (request,) = edge.proxy.requests
    assert [request.one(name) for name in ("dpop", "authorization", "c2l-dpop-nonce")] == [None] * 3


async def test_of_an_upstreams_101_only_the_handshake_passes(edge: EdgeUnderTest) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n"
            b"Server: Python\r\nSec-WebSocket-Accept: x\r\nDPoP-Nonce: n2\r\nX-Other: y\r\n\r\n"
        )

    edge.proxy.script = script
    reader, writer = await edge.connect()
    writer.write(edge.head("GET", "/ws/tunnel", *UPGRADE))
    answer = await read_head(reader)
    assert set(answer.fields) - {"date"} == {"connection", "upgrade", "sec-websocket-accept", "dpop-nonce"}
    writer.close()


async def test_the_tunnel_is_for_upgrades_only(edge: EdgeUnderTest) -> None:
    answer = await edge.get("/ws/tunnel")
    assert 400 <= answer.status < 500
    assert edge.proxy.requests == []
