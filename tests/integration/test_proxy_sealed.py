"""Sealed requests through a real proxy and tunnel: bytes as they are, to the named machine, at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.link_parts import until
from tests.support.proxy_rig import Home, ProxyRig, Reply, assertion, proxy_rig

from cloudtolocalllm.tunnel import Headers, ResetReason, ResponseHead

TARGET = "/e2e/home"
REQUEST = [("Content-Type", "message/ohttp-chunked-req")]
SEALED = ((b"content-type", b"message/ohttp-chunked-res"), (b"cache-control", b"no-store"))
EVERY_BYTE = bytes(range(256)) * 40 + b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
async def rig() -> AsyncIterator[ProxyRig]:
    async with proxy_rig() as rig:
        await rig.bridge()
        yield rig


class EchoHome(Home):
    """Answers with the request's content."""

    def on_end(self, trailers: Headers) -> None:
        super().on_end(trailers)
        self.answer(200, SEALED, bytes(self.data))


async def test_bytes_types_and_target_cross_unchanged(rig: ProxyRig) -> None:
    rig.make = EchoHome
    client = await rig.client()
    client.send(target=TARGET, headers=REQUEST, body=EVERY_BYTE)
    reply = await client.reply()
    assert (reply.status, reply.body) == (200, EVERY_BYTE)
    assert (reply.headers["content-type"], reply.headers["cache-control"]) == (
        "message/ohttp-chunked-res",
        "no-store",
    )
    (home,) = rig.homes
    assert (home.head.method, home.head.target, bytes(home.data)) == ("POST", TARGET, EVERY_BYTE)
    assert home.field(b"content-type") == b"message/ohttp-chunked-req"


async def test_a_statement_is_fetched(rig: ProxyRig) -> None:
    statement = b"a.b.c"
    fields = ((b"content-type", b"application/c2l-keys+jwt"), (b"cache-control", b"no-store"))
    rig.on_request = lambda home: home.answer(200, fields, statement)
    client = await rig.client()
    client.send("GET", TARGET)
    reply = await client.reply("GET")
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/c2l-keys+jwt", statement)


async def test_small_frames_go_up_and_come_down_one_by_one(rig: ProxyRig) -> None:
    """The next is made only when the one before has arrived: nothing is held back to be joined."""

    class Echo(Home):
        def on_data(self, data: bytes) -> None:
            super().on_data(data)
            self.stream.send_data(data)

    rig.make = Echo
    rig.on_request = lambda home: home.stream.send_head(ResponseHead(200, SEALED))
    client = await rig.client()
    client.send(target=TARGET, headers=[*REQUEST, ("Transfer-Encoding", "chunked")])
    status, headers = await client.head()
    chunks = client.chunks("POST", Reply(status, headers, b""))
    for number in range(10):
        piece = b"\xff%b" % bytes((number,))
        client.writer.write(b"2\r\n%b\r\n" % piece)
        assert await asyncio.wait_for(anext(chunks), 5) == piece
    client.writer.write(b"0\r\n\r\n")
    home = await rig.home()
    await asyncio.wait_for(home.done.wait(), 5)
    home.stream.end()
    assert [chunk async for chunk in chunks] == []


async def test_a_lost_client_resets_the_stream_so_that_the_home_can_detach(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(target=TARGET, headers=REQUEST, body=EVERY_BYTE)
    home = await rig.home()
    home.stream.send_head(ResponseHead(200, SEALED))
    home.stream.send_data(b"\0\1\2")
    await client.head()
    client.close()
    await until(lambda: home.reset is not None)
    assert home.reset is not None
    assert home.reset[0] is ResetReason.CANCELLED
    await until(lambda: rig.proxy.stats.in_flight == 0)


async def test_a_client_lost_before_the_request_is_whole_resets_it_too(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(target=TARGET, headers=[*REQUEST, ("Content-Length", "100")])
    client.writer.write(b"\0" * 50)
    home = await rig.home()
    await until(lambda: len(home.data) == 50)
    client.close()
    await until(lambda: home.reset is not None)
    assert home.trailers is None, "expected no end of the request: what came is not the whole"


async def test_an_answer_that_the_home_breaks_off_does_not_end_well(rig: ProxyRig) -> None:
    client = await rig.client()
    client.send(target=TARGET, headers=REQUEST, body=b"\0")
    home = await rig.home()
    home.stream.send_head(ResponseHead(200, SEALED))
    home.stream.send_data(b"\0\1\2")
    status, headers = await client.head()
    chunks = client.chunks("POST", Reply(status, headers, b""))
    assert await asyncio.wait_for(anext(chunks), 5) == b"\0\1\2"
    home.stream.reset(ResetReason.INTERNAL)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(anext(chunks), 5)


async def test_it_goes_to_the_named_machine_though_another_one_is_there(rig: ProxyRig) -> None:
    await rig.bridge("other")
    rig.make = EchoHome
    for named in ("other", "home"):
        client = await rig.client()
        client.send(target=f"/e2e/{named}", headers=REQUEST, body=b"\0", token=assertion(bridges=(named,)))
        assert (await client.reply()).body == b"\0"
    assert [home.bridge for home in rig.homes] == ["other", "home"]


async def test_it_goes_to_no_other_machine_when_the_named_one_is_away_or_refuses(rig: ProxyRig) -> None:
    rig.on_request = lambda home: home.stream.reset(ResetReason.REFUSED)
    await rig.bridge("other")
    for named, status in (("away", 503), ("home", 503)):
        client = await rig.client()
        client.send(target=f"/e2e/{named}", headers=REQUEST, body=EVERY_BYTE, token=assertion(bridges=(named,)))
        assert (await client.reply()).status == status
    assert {home.bridge for home in rig.homes} == {"home"}


async def test_what_a_client_says_of_itself_does_not_reach_the_home(rig: ProxyRig) -> None:
    rig.make = EchoHome
    forged = [("C2L-Via", "session"), ("C2L-Key", "k"), ("C2L-Scope", "e30"), ("C2L-Device", "d"), ("Cookie", "s=1")]
    client = await rig.client()
    token = assertion(via="key", scope='{"rts":["/e2e/"],"iat":1,"exp":2}')
    client.send(target=TARGET, headers=[*REQUEST, *forged, ("X-Api-Key", "k")], body=b"\0", token=token)
    assert (await client.reply()).status == 200
    (home,) = rig.homes
    names = [name for name, _ in home.head.headers]
    assert {b"c2l-device", b"cookie", b"x-api-key"}.isdisjoint(names)
    assert (home.field(b"c2l-via"), home.field(b"c2l-key")) == (b"key", b"key-1")
    assert len(set(names)) == len(names)
