"""What is asked of the page at home is answered as to sealed requests: streamed, guarded, taken up, stopped."""

import asyncio
import contextlib
import json
from pathlib import Path

import httpx
from tests.support.gateway_parts import CHAT, NAMED, THREE, stream_three
from tests.support.link_parts import until
from tests.support.page_parts import paged, problem_of
from tests.support.scripted_engine import Asked, scripted_engine
from tests.support.sealed_client import SealedClient, TunnelOuter, link_of

from cloudtolocalllm.sealed import base64url

NAME = base64url.encode(NAMED)
CHATS = "/v1/chat/completions"


async def test_an_engine_answers_as_to_a_sealed_request(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def paced(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", "set-cookie: a=b", "nel: {}", chunked=True)
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await gate.wait()
        asked.chunk(b"data: 2\n\ndata: 3\n\n")
        asked.last_chunk()

    async with scripted_engine(answer=paced) as engine, paged(tmp_path, engine.url) as (_, browser):
        fields = {**browser.own, "content-type": "application/json", "origin": browser.url, "c2l-via": "key"}
        async with browser.client.stream("POST", CHATS, json=CHAT, headers=fields) as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
            for absent in ("set-cookie", "c2l-readable", "nel"):
                assert absent not in answer.headers
            pieces = answer.aiter_bytes()
            assert await anext(pieces) == b"data: 1\n\n", "expected it before the engine goes on"
            gate.set()
            assert b"data: 1\n\n" + b"".join([piece async for piece in pieces]) == THREE
        [asked] = engine.asked
        assert (asked.method, asked.target, json.loads(asked.body)) == ("POST", CHATS, CHAT)
        for dropped in ("origin", "cookie", "c2l-request", "c2l-via", "sec-fetch-site"):
            assert asked.field(dropped) is None, dropped


async def test_the_guard_holds_here_too(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        for method, path in (
            ("POST", "/ollama/api/pull"),
            ("GET", "/v1/files"),
            ("GET", "/v1/%2e%2e/x"),
            ("GET", "/v1"),
        ):
            assert problem_of(await browser.ask(method, path, {} if method == "POST" else None))[0] == 403, path
        assert problem_of(await browser.ask("POST", "/c2l/devices", {"point": "x"}))[0] in (404, 405)
        assert engine.asked == []


async def test_a_large_question_comes_through_whole(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        text = "w" * 3_000_000
        answer = await browser.ask("POST", CHATS, {**CHAT, "messages": [{"role": "user", "content": text}]})
        assert answer.status_code == 200
        assert json.loads(engine.asked[0].body)["messages"][0]["content"] == text


async def test_a_large_answer_waits_for_a_slow_reader(tmp_path: Path) -> None:
    piece, count = b"data: " + b"w" * 8000 + b"\n\n", 1500

    async def much(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        for _ in range(count):
            asked.chunk(piece)
            await asked.writer.drain()
        asked.last_chunk()

    async with scripted_engine(answer=much) as engine, paged(tmp_path, engine.url) as (_, browser):
        async with browser.client.stream("POST", CHATS, json=CHAT, headers=browser.own) as answer:
            await asyncio.sleep(0.2)
            size = 0
            async for data in answer.aiter_bytes():
                size += len(data)
        assert size == len(piece) * count


async def test_an_answer_is_taken_up_from_every_byte(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paged(tmp_path, engine.url) as (_, browser):
        first = await browser.ask("POST", CHATS, CHAT, c2l_exchange=NAME)
        assert first.content == THREE
        for offset in (0, 1, 9, len(THREE)):
            again = await browser.ask("POST", CHATS, None, c2l_exchange=NAME, c2l_offset=str(offset))
            assert (again.status_code, again.headers["c2l-offset"]) == (200, str(offset))
            assert again.content == THREE[offset:]
        assert len(engine.asked) == 1, "expected that nothing is started again"
        unknown = base64url.encode(b"another exchange")
        lost = await browser.ask("POST", CHATS, None, c2l_exchange=unknown, c2l_offset="5")
        assert problem_of(lost) == (404, "exchange-unknown")
        assert problem_of(await browser.ask("GET", "/v1/models", None, c2l_exchange="x")) == (400, "bad-request")


async def test_a_lost_connection_stops_nothing_that_has_a_name(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def paced(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await asyncio.wait(
            [asyncio.ensure_future(gate.wait()), asyncio.ensure_future(asked.gone.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        asked.chunk(b"data: 2\n\ndata: 3\n\n")
        asked.last_chunk()

    async with scripted_engine(answer=paced) as engine, paged(tmp_path, engine.url) as (_, browser):
        for named in (True, False):
            gate.clear()
            name = {"c2l-exchange": NAME} if named else {}
            async with browser.client.stream("POST", CHATS, json=CHAT, headers={**browser.own, **name}) as answer:
                await anext(answer.aiter_bytes())
            if not named:
                await until(engine.asked[-1].gone.is_set)
                continue
            await asyncio.sleep(0.1)
            assert not engine.asked[-1].gone.is_set()
            gate.set()
            rest = await browser.ask("POST", CHATS, None, c2l_exchange=NAME, c2l_offset="9")
            assert rest.content == THREE[9:]


async def test_stop_is_explicit(tmp_path: Path) -> None:
    async def endless(asked: Asked) -> None:
        asked.head(200, "content-type: text/event-stream", chunked=True)
        asked.chunk(b"data: 1\n\n")
        await asked.writer.drain()
        await asked.gone.wait()

    async with scripted_engine(answer=endless) as engine, paged(tmp_path, engine.url) as (_, browser):
        async with browser.client.stream(
            "POST", CHATS, json=CHAT, headers={**browser.own, "c2l-exchange": NAME}
        ) as answer:  # fmt: skip
            await anext(answer.aiter_bytes())
        assert (await browser.ask("DELETE", f"/c2l/exchanges/{NAME}")).status_code == 204
        await until(engine.asked[-1].gone.is_set)


async def test_an_exchange_of_a_device_is_not_the_pages_and_the_other_way_round(tmp_path: Path) -> None:
    async with scripted_engine(answer=stream_three) as engine, paged(tmp_path, engine.url) as (at, browser):
        device = await SealedClient.paired(TunnelOuter(at), link_of(at))
        assert await (await device.open("POST", CHATS, CHAT, exchange=NAMED)).read() == THREE
        assert problem_of(await browser.ask("GET", f"/c2l/exchanges/{NAME}")) == (404, "not-found")
        assert (await browser.ask("POST", CHATS, CHAT, c2l_exchange=NAME)).content == THREE
        assert len(engine.asked) == 2


async def test_the_home_api_is_there_for_the_person_at_the_machine(tmp_path: Path) -> None:
    async with scripted_engine() as engine, paged(tmp_path, engine.url) as (_, browser):
        made = (await browser.ask("POST", "/c2l/conversations", {"title": "plans"})).json()
        listed = (await browser.ask("GET", "/c2l/conversations?limit=5")).json()
        assert [one["id"] for one in listed["conversations"]] == [made["id"]]
        assert (await browser.ask("GET", "/c2l/devices")).json()["own"] is None
        state = (await browser.ask("GET", "/c2l/home")).json()
        target = f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}"
        async with browser.client.stream("GET", target, headers=browser.own) as events:
            assert events.headers["content-type"] == "application/x-ndjson"
            lines = events.aiter_lines()
            await anext(lines)
            await browser.ask("POST", "/c2l/conversations", {"title": "more"})
            async with asyncio.timeout(5):
                assert json.loads(await anext(lines))["changes"]


async def test_a_bridge_that_ends_does_not_wait_for_pages(tmp_path: Path) -> None:
    async with scripted_engine() as engine, contextlib.AsyncExitStack() as stack:
        _, browser = await stack.enter_async_context(paged(tmp_path, engine.url))
        state = (await browser.ask("GET", "/c2l/home")).json()
        target = f"/c2l/changes/events?epoch={state['epoch']}&since={state['newest']}"
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=browser.url, cookies=browser.client.cookies)
        )
        for path in (target, "/api/streaming/events"):
            await stack.enter_async_context(client.stream("GET", path, headers=browser.own))
        async with asyncio.timeout(5):
            assert browser.page is not None
            await browser.page.close()
