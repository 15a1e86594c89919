"""Answers that a device takes up again: from any byte, running or finished, its own only; stops are explicit."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway_parts import CHAT, NAMED, THREE, paired, stream_three
from tests.support.link_parts import until
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import CutError, SealedAnswer, SealedClient, TunnelOuter, link_of

from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE
from cloudtolocalllm.sealed.resume import Resume, resume_fields
from cloudtolocalllm.tunnel import ResetReason

EXCHANGE = f"/c2l/exchanges/{base64url.encode(NAMED)}"
TEXT = b"".join(b"data: %d %s\n\n" % (n, b"w" * (n % 23)) for n in range(400))
ROUTE = ("POST", "/v1/chat/completions")


def paced(gate: asyncio.Event | None = None, half: int = len(TEXT) // 2) -> Callable[[Asked], Awaitable[None]]:
    """Answer with TEXT; wait in the middle for the gate."""

    async def answer(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        for at in range(0, len(TEXT), 500):
            if gate is not None and at >= half:
                await gate.wait()
            if asked.gone.is_set():
                return
            asked.chunk(TEXT[at : at + 500])
            await asked.writer.drain()
        asked.last_chunk()

    return answer


async def taken(answer: SealedAnswer, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += await answer.some()
    return content


async def test_an_answer_is_the_same_from_every_offset(tmp_path: Path) -> None:
    async with scripted_engine(answer=paced()) as engine, paired(tmp_path, engine) as (_, client):
        first = await client.open(*ROUTE, CHAT, exchange=NAMED)
        assert await first.read() == TEXT
        for offset in (0, 1, 499, 500, 501, len(TEXT) // 2, len(TEXT) - 1, len(TEXT)):
            for value in (CHAT, None):
                again = await client.open(*ROUTE, value, exchange=NAMED, offset=offset)
                assert (again.status, again.field(b"content-type")) == (200, b"text/event-stream")
                assert (again.field(b"c2l-offset"), await again.read()) == (b"%d" % offset, TEXT[offset:])
        assert len(engine.asked) == 1, "expected that nothing is started again"


async def test_whoever_goes_away_leaves_it_running_and_takes_it_up(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with scripted_engine(answer=paced(gate)) as engine, paired(tmp_path, engine) as (_, client):
        first = await client.open(*ROUTE, CHAT, exchange=NAMED)
        begun = (await taken(first, 3000))[:3000]
        await first.leave()
        await asyncio.sleep(0.1)
        assert not engine.asked[0].gone.is_set()
        second = await client.open(*ROUTE, exchange=NAMED, offset=len(begun))
        begun += await taken(second, 500)
        third = await client.open(*ROUTE, exchange=NAMED, offset=1)
        gate.set()
        assert begun + await second.read() == TEXT
        assert await third.read() == TEXT[1:], "expected that several may read at once"
        assert len(engine.asked) == 1


async def test_a_lost_tunnel_is_survived(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with scripted_engine(answer=paced(gate)) as engine, paired(tmp_path, engine) as (at, client):
        first = await client.open(*ROUTE, CHAT, exchange=NAMED)
        begun = await taken(first, 2000)
        old = at.tunnel
        old.end("the proxy is gone")
        with pytest.raises(CutError):
            await first.read()
        at.bridge.tunnels.wake("px-fedcba9876543210")
        await until(lambda: bool(at.server.tunnels()) and at.tunnel is not old and at.tunnel.attached)
        gate.set()
        again = await client.open(*ROUTE, exchange=NAMED, offset=len(begun))
        assert begun + await again.read() == TEXT
        assert len(engine.asked) == 1


async def test_the_whole_arrives_through_random_breaks(tmp_path: Path) -> None:
    async with scripted_engine(answer=paced()) as engine, paired(tmp_path, engine) as (at, client):

        class Breaking(TunnelOuter):
            left = 12

            async def send(self, method: str, target: str, content_type: str, content: bytes) -> Any:
                answer = await super().send(method, target, content_type, content)
                if content and self.left and secrets.randbelow(4):
                    self.left -= 1
                    loop = asyncio.get_running_loop()
                    loop.call_later(secrets.randbelow(20) / 1000, answer.break_off)
                return answer

        client.outer = Breaking(at)
        assert await client.whole(*ROUTE, CHAT, NAMED) == TEXT
        assert len(engine.asked) == 1


async def test_a_name_that_is_not_known_starts_at_0_only(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        assert await client.refused(*ROUTE, CHAT, exchange=NAMED, offset=3) == (404, "exchange-unknown")
        assert engine.asked == []
        assert await (await client.open(*ROUTE, CHAT, exchange=NAMED)).read() == THREE
        assert await client.refused(*ROUTE, CHAT, exchange=NAMED, offset=99) == (400, "bad-request")
        assert await client.refused("POST", "/v1/completions", CHAT, exchange=NAMED) == (400, "bad-request")
        at.bridge.journal.limit = 0
        at.bridge.journal.make_room()
        assert await client.refused(*ROUTE, CHAT, exchange=NAMED, offset=3) == (404, "exchange-unknown")


async def test_devices_have_exchanges_of_their_own(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with scripted_engine(answer=paced(gate)) as engine, paired(tmp_path, engine) as (at, client):
        other = await SealedClient.paired(TunnelOuter(at), link_of(at), "phone")
        mine = await client.open(*ROUTE, CHAT, exchange=NAMED)
        await taken(mine, 1000)
        assert await other.refused(*ROUTE, CHAT, exchange=NAMED, offset=5) == (404, "exchange-unknown")
        assert await other.refused("GET", EXCHANGE) == (404, "not-found")
        its = await other.open(*ROUTE, CHAT, exchange=NAMED)
        assert await taken(its, 1000)
        assert len(engine.asked) == 2
        assert (await other.open("DELETE", EXCHANGE)).status == 204
        await until(lambda: engine.asked[1].gone.is_set())
        assert not engine.asked[0].gone.is_set(), "expected that a device stops its own only"
        gate.set()
        assert (await mine.read()).endswith(TEXT[-100:])


async def test_the_cloud_reads_no_sealed_answer_out_of_the_journal(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        await (await client.open(*ROUTE, CHAT, exchange=NAMED)).read()
        for name in (base64url.encode(NAMED), f"{client.device}.{base64url.encode(NAMED)}"):
            answer = await at.answer("GET", f"/c2l/exchanges/{name}", None, (b"c2l-via", b"session"))
            assert answer.status in (403, 404)
        plain = await at.answer(*ROUTE, CHAT, (b"c2l-exchange-id", b"plain-exchange-0123"))
        assert plain.status == 200
        assert await client.refused("GET", "/c2l/exchanges/plain-exchange-0123") == (404, "not-found")


async def test_a_device_reads_and_stops_its_own_by_name(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with scripted_engine(answer=paced(gate)) as engine, paired(tmp_path, engine) as (_, client):
        first = await client.open(*ROUTE, CHAT, exchange=NAMED)
        await taken(first, 1000)
        watch = await client.open("GET", f"{EXCHANGE}?offset=7")
        assert TEXT[7:].startswith(await taken(watch, 500))
        stopped = await client.open("DELETE", EXCHANGE)
        assert (stopped.status, await stopped.read()) == (204, b"")
        await until(lambda: engine.asked[0].gone.is_set())
        with pytest.raises(CutError):
            await first.read()
        for offset in (0, 5):
            again = await client.refused(*ROUTE, CHAT, exchange=NAMED, offset=offset)
            assert again == (404, "exchange-unknown"), "expected that what was stopped does not begin again"
        assert len(engine.asked) == 1


async def test_a_stop_that_is_faster_than_its_request_holds(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (_, client):
        assert (await client.open("DELETE", EXCHANGE)).status == 204
        assert await client.refused(*ROUTE, CHAT, exchange=NAMED) == (404, "exchange-unknown")
        assert engine.asked == []


async def test_without_a_name_nobody_could_take_it_up_so_it_ends(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with scripted_engine(answer=paced(gate)) as engine, paired(tmp_path, engine) as (_, client):
        first = await client.open(*ROUTE, CHAT)
        await taken(first, 1000)
        await first.leave()
        await until(lambda: engine.asked[0].gone.is_set())


async def test_a_request_that_never_arrived_whole_may_be_sent_again(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        named = resume_fields(Resume(NAMED))
        sealed, _ = client.seal(
            RequestHead(b"POST", b"/v1/chat/completions", named, b"https", b"home"), b" " * 90_000
        )
        answer = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed[:50_000], end=False)
        await until(lambda: bool(at.bridge._desk.live))
        await answer.leave()
        await until(lambda: not at.bridge._desk.live)
        assert await (await client.open(*ROUTE, CHAT, exchange=NAMED)).read() == THREE


@pytest.mark.parametrize(("method", "path"), [ROUTE, ("PUT", "/c2l/attachments")])
async def test_a_request_that_stays_half_gives_way_to_the_next_of_its_name(
    tmp_path: Path, method: str, path: str
) -> None:
    """A phone changed the network in the middle of an upload: the connection before is dead, and nobody knows yet."""
    async with scripted_engine(answer=stream_three) as engine, paired(tmp_path, engine) as (at, client):
        head = RequestHead(method.encode(), path.encode(), resume_fields(Resume(NAMED)), b"https", b"home")
        sealed, _ = client.seal(head, b" " * 90_000)
        half = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed[:50_000], end=False)
        await until(lambda: len(at.bridge.journal.running()) == 1)
        again = await client.open(method, path, content=b" " * 90_000, exchange=NAMED)
        content = await again.read()
        assert (again.status, content == THREE) == (200, path != "/c2l/attachments")
        await until(lambda: half.reset is not None)
        assert at.bridge._desk.memory.held == 0
        resumed = await client.open(method, path, exchange=NAMED, offset=3)
        assert await resumed.read() == content[3:]


async def test_what_is_stopped_before_it_has_arrived_is_not_held(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        named = resume_fields(Resume(NAMED))
        head = RequestHead(b"PUT", b"/c2l/attachments", named, b"https", b"home")
        sealed, _ = client.seal(head, b" " * 90_000)
        answer = TunnelOuter(at).begin("POST", client.target, REQUEST_TYPE, sealed[:50_000], end=False)
        await until(lambda: at.bridge._desk.memory.held > 0)
        assert (await client.open("DELETE", EXCHANGE)).status == 204
        await until(lambda: answer.reset is not None)
        assert at.bridge._desk.memory.held == 0
        assert await client.refused("PUT", "/c2l/attachments", exchange=NAMED) == (404, "exchange-unknown")


async def test_an_answer_that_broke_off_at_home_says_so_once_all_of_it_is_read(tmp_path: Path) -> None:
    async def broken(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        asked.chunk(TEXT[:1000])
        await asked.writer.drain()
        await asyncio.sleep(0.05)
        asked.writer.close()

    async with scripted_engine(answer=broken) as engine, paired(tmp_path, engine) as (_, client):
        first = await client.open(*ROUTE, CHAT, exchange=NAMED)
        with pytest.raises(CutError):
            await first.read()
        again = await client.open(*ROUTE, exchange=NAMED, offset=10)
        with pytest.raises(CutError):
            await again.read()
        assert await client.refused(*ROUTE, exchange=NAMED, offset=1000) == (502, "engine-error")
        assert len(engine.asked) == 1


async def test_whatever_has_a_name_can_be_taken_up(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paired(tmp_path, engine) as (at, client):
        body = {"title": "made once"}
        first = await client.ask("POST", "/c2l/conversations", body, exchange=NAMED)
        again = await client.ask("POST", "/c2l/conversations", body, exchange=NAMED)
        assert first == again
        assert len((await client.ask("GET", "/c2l/conversations"))["conversations"]) == 1
        tail = await client.open("POST", "/c2l/conversations", exchange=NAMED, offset=5)
        assert tail.offset == 5
        other = secrets.token_bytes(16)
        await client.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}, exchange=other)
        await client.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}, exchange=other)
        assert len(engine.asked) == 1
        for _ in range(2):
            twice = "/c2l/conversations?limit=5&limit=6"
            assert await client.refused("GET", twice, exchange=b"expected refusal") == (400, "bad-request")
        assert at.bridge.journal.running() == []
        # Events have offsets of their own: they begin anew, and are kept by nobody.
        state = await client.ask("GET", "/c2l/home")
        path = f"/c2l/changes/events?epoch={state['epoch']}&since=0"
        third = secrets.token_bytes(16)
        for _ in range(2):
            watch = await client.open("GET", path, exchange=third)
            await anext(watch.lines())
            await watch.leave()
        assert await client.refused("GET", path, exchange=third, offset=1) == (404, "exchange-unknown")


async def test_a_reader_that_takes_nothing_costs_a_bounded_amount_and_stops_the_engine(tmp_path: Path) -> None:
    sent = 0

    async def endless(asked: Asked) -> None:
        nonlocal sent
        asked.head(200, "content-type: text/event-stream", chunked=True)
        while not asked.gone.is_set() and sent < 64 << 20:
            asked.chunk(b"x" * 16_384)
            sent += 16_384
            await asked.writer.drain()

    async with scripted_engine(answer=endless) as engine, paired(tmp_path, engine) as (at, client):
        answer = await client.open(*ROUTE, CHAT)
        [exchange] = at.bridge._desk.live
        first = -1
        async with asyncio.timeout(30):
            while first != sent:  # until the engine waits; if it never did, until it has sent all
                first = sent
                await asyncio.sleep(0.5)
        [sealed] = at.bridge.gateway._open[client.device]  # type: ignore[union-attr] # it runs
        assert sealed.port is not None
        assert len(sealed.port._unsent) < 100_000
        assert exchange.record.held < 1 << 20
        assert first < 16 << 20, "expected the engine to wait"
        got = 0
        while got < first:
            got += len(await answer.some())
        assert sent > first, "expected it to go on"
        await answer.leave()
        await until(lambda: not at.bridge._desk.live)


async def test_the_record_of_a_lost_client_does_not_hold_the_next_one_up(tmp_path: Path) -> None:
    async with scripted_engine(answer=paced()) as engine, paired(tmp_path, engine) as (_, client):
        slow = await client.open(*ROUTE, CHAT, exchange=NAMED)
        fast = await client.open(*ROUTE, exchange=NAMED)
        assert await fast.read() == TEXT
        assert await slow.read() == TEXT
        slow = await client.open(*ROUTE, exchange=NAMED, offset=9)
        assert isinstance(slow, SealedAnswer)
        slow._outer.stream.reset(ResetReason.CANCELLED)  # type: ignore[attr-defined] # a tunnel's
        assert await (await client.open(*ROUTE, exchange=NAMED)).read() == TEXT
