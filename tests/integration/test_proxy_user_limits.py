"""What one user and each key may do, asked of a real proxy; and who the proxy tells the home that asks."""

import asyncio
import base64
import json
import re
from collections.abc import Iterable

import pytest
from tests.support.link_parts import until
from tests.support.proxy_rig import Client, Home, ProxyRig, Reply, assertion, proxy_rig

from cloudtolocalllm.auth.assertion import KEY, SESSION, Limits
from cloudtolocalllm.tunnel import ResponseHead

SCOPE = '{"mdl":["tiny"],"iat":1,"exp":2}'


def problem(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    return str(json.loads(reply.body)["type"]).removeprefix("urn:c2l:problem:")


def violated(reply: Reply) -> list[str]:
    return list(json.loads(reply.body)["violated-policies"])


def remaining(reply: Reply) -> dict[str, int]:
    return {name: int(left) for name, left in re.findall(r'"([a-z-]+)";r=([0-9]+)', reply.headers["ratelimit"])}


def answer_at_once(home: Home) -> None:
    home.answer(200, ((b"content-length", b"2"),), b"ok")


async def ask(rig: ProxyRig, token: str, *, method: str = "POST", target: str = "/v1/chat/completions") -> Reply:
    client = await rig.client()
    client.send(method, target, body=b"{}" if method == "POST" else None, token=token)
    reply = await client.reply(method)
    client.close()
    return reply


@pytest.mark.parametrize("per_key", [False, True])
async def test_of_five_times_as_many_at_once_exactly_the_limit_is_answered(per_key: bool) -> None:
    limits = Limits(requests_per_minute=1000 if per_key else 8)
    token = assertion(limits=limits, via=KEY, key_requests_per_minute=8 if per_key else 0)
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = answer_at_once
        replies = await asyncio.gather(*(ask(rig, token) for _ in range(40)))
        refused = [reply for reply in replies if reply.status == 429]
        assert [reply.status for reply in replies].count(200) == 8
        assert len(refused) == 32
        assert len(rig.homes) == 8, "the home hears of no other"
        for reply in refused:
            assert problem(reply) == "rate-limited"
            assert violated(reply) == ["key-requests" if per_key else "requests"]
            assert 1 <= int(reply.headers["retry-after"]) <= 8
            assert reply.headers["cache-control"] == "no-store"
            assert remaining(reply)[violated(reply)[0]] == 0
        assert rig.proxy.stats.streams_total == 8


async def test_streams_at_once_are_exact_and_come_free_again() -> None:
    token = assertion(limits=Limits(streams=4))
    async with proxy_rig() as rig:
        await rig.bridge()
        tasks = [asyncio.get_running_loop().create_task(ask(rig, token)) for _ in range(20)]
        await until(lambda: sum(task.done() for task in tasks) == 16)
        refused = [task.result() for task in tasks if task.done()]
        assert all((reply.status, violated(reply)) == (429, ["streams"]) for reply in refused)
        assert all(reply.headers["retry-after"] == "1" for reply in refused)
        await until(lambda: len(rig.homes) == 4)
        for home in rig.homes:
            answer_at_once(home)
        replies = await asyncio.gather(*tasks)
        assert [reply.status for reply in replies].count(200) == 4
        rig.on_request = answer_at_once
        assert (await ask(rig, token)).status == 200
        assert rig.proxy.stats.in_flight == 0


async def test_a_client_that_leaves_gives_its_stream_back() -> None:
    token = assertion(limits=Limits(streams=1))
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}", token=token)
        await rig.home()
        assert (await ask(rig, token)).status == 429
        client.close()
        await until(lambda: rig.proxy.stats.in_flight == 0)
        rig.on_request = answer_at_once
        assert (await ask(rig, token)).status == 200


async def test_a_long_answer_is_not_cut_but_the_next_request_pays() -> None:
    token = assertion(limits=Limits(bytes_per_minute=100_000))
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}", token=token)
        home = await rig.home()
        home.stream.send_head(ResponseHead(200, ()))
        size = 0
        reply = Reply(*await client.head(), b"")
        chunks = client.chunks("POST", reply)
        while size < 300_000:
            home.stream.send_data(b"x" * 10_000)
            wanted = size + 10_000
            while size < wanted:
                size += len(await anext(chunks))
        refused = await ask(rig, token)
        assert (refused.status, violated(refused)) == (429, ["bytes"]), "while it still runs"
        assert 100 <= int(refused.headers["retry-after"]) <= 121
        assert remaining(refused)["bytes"] == 0
        home.stream.send_data(b"end")
        home.stream.end()
        rest = b"".join([chunk async for chunk in chunks])
        assert rest.endswith(b"end"), "the answer that runs is whole"
        assert (await ask(rig, token)).status == 429
        assert len(rig.homes) == 1


async def test_the_content_of_requests_counts_too() -> None:
    token = assertion(limits=Limits(bytes_per_minute=50_000))
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = answer_at_once
        client = await rig.client()
        client.send(body=b"x" * 60_000, token=token)
        reply = await client.reply()
        assert reply.status == 200
        await until(lambda: rig.proxy.stats.in_flight == 0)
        assert rig.proxy.stats.bytes_up + rig.proxy.stats.bytes_down > 50_000
        assert (await ask(rig, token)).status == 429


async def test_whoever_may_no_more_can_still_stop_an_exchange() -> None:
    token = assertion(limits=Limits(streams=1, requests_per_minute=10), via=KEY, key_requests_per_minute=1)
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(body=b"{}", token=token)
        await rig.home()
        assert (await ask(rig, token)).status == 429
        rig.on_request = lambda home: home.answer(204)
        target = "/c2l/exchanges/exchange-0123456789"
        assert (await ask(rig, token, method="DELETE", target=target)).status == 204
        assert (await ask(rig, token, method="DELETE", target="/v1/" + target)).status == 429
        assert (await ask(rig, token, method="GET", target=target)).status == 429


async def test_every_answer_says_what_is_left() -> None:
    limits = Limits(4, 100, 10**9)
    token = assertion(limits=limits, via=KEY, key_requests_per_minute=7)
    async with proxy_rig() as rig:
        offline = await ask(rig, token)
        assert (offline.status, problem(offline)) == (503, "bridge-offline")
        assert remaining(offline) == {"streams": 3, "requests": 99, "bytes": 10**9, "key-requests": 6}
        await rig.bridge()
        rig.on_request = answer_at_once
        reply = await ask(rig, token)
        assert reply.headers["ratelimit-policy"] == (
            '"streams";q=4;qu="concurrent-requests", "requests";q=100;w=60, '
            '"bytes";q=1000000000;w=60;qu="content-bytes", "key-requests";q=7;w=60'
        )
        assert remaining(reply)["requests"] == 98
        assert remaining(reply)["key-requests"] == 5
        page = await ask(rig, assertion(limits=limits, via=SESSION))
        assert "key-requests" not in page.headers["ratelimit"]
        assert remaining(page)["requests"] == 97
        none = await ask(rig, assertion())
        assert "ratelimit" not in none.headers
        assert "ratelimit-policy" not in none.headers


async def test_one_of_our_own_limits_is_not_hidden_by_the_homes() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = lambda home: home.answer(200, ((b"ratelimit", b'"home";r=5'),), b"ok")
        client = await rig.client()
        client.send(body=b"{}", token=assertion(limits=Limits(requests_per_minute=9)))
        raw = (await client.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert re.findall(r"\r\nratelimit: (.*)\r", raw) == ['"home";r=5', '"requests";r=8;t=7']


# --- who asks ---------------------------------------------------------------------------------------------------

SMUGGLED: dict[str, Iterable[tuple[str, str]]] = {
    "plain": [("c2l-via", "session"), ("c2l-key", "aaaaaaaaaaaa"), ("c2l-scope", "e30")],
    "capitals": [("C2L-Via", "session"), ("C2L-KEY", "aaaaaaaaaaaa"), ("C2L-Scope", "e30")],
    "underscores": [("C2L_Via", "session"), ("c2l_key", "aaaaaaaaaaaa"), ("c2l_scope", "e30")],
    "mixed": [("c2L_-Via", "session"), ("C2l--key", "aaaaaaaaaaaa")],
    "twice": [("c2l-via", "session"), ("c2l-via", "session"), ("c2l-key", "a"), ("C2L-Key", "b")],
    "in a list": [("c2l-via", "session, key"), ("c2l-key", "a, b")],
    "empty": [("c2l-via", ""), ("c2l-key", ""), ("c2l-scope", "")],
    "named by connection": [("connection", "c2l-via, c2l-key, c2l-scope, keep-alive"), ("c2l-via", "session")],
    "none": [],
}


def told(home: Home) -> list[tuple[bytes, bytes]]:
    """What the home is told about who asks, in whichever spelling."""
    known = (b"c2l-exchange-id", b"c2l-request-id")
    return [field for field in home.head.headers if field[0].lower().startswith(b"c2l") and field[0] not in known]


async def forwarded(client: Client, rig: ProxyRig, fields: Iterable[tuple[str, str]], token: str) -> Home:
    before = len(rig.homes)
    client.send(headers=fields, body=b"{}", token=token)
    assert (await client.reply()).status == 200
    return rig.homes[before]


@pytest.mark.parametrize("fields", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_a_client_cannot_say_who_it_is(fields: Iterable[tuple[str, str]]) -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        rig.on_request = answer_at_once
        client = await rig.client()
        by_key = await forwarded(client, rig, fields, assertion(via=KEY, subject="3fomfi6a5lvd", scope=SCOPE))
        encoded = base64.urlsafe_b64encode(SCOPE.encode()).rstrip(b"=")
        assert told(by_key) == [(b"c2l-via", b"key"), (b"c2l-key", b"3fomfi6a5lvd"), (b"c2l-scope", encoded)]
        by_page = await forwarded(client, rig, fields, assertion(via=SESSION, subject="a-session"))
        assert told(by_page) == [(b"c2l-via", b"session")]
        of_an_older_api = await forwarded(client, rig, fields, assertion())
        assert told(of_an_older_api) == []


@pytest.mark.parametrize(
    "line", [b"c2l-via : session", b" c2l-via: session", b"c2l-via\t: session", b"x: y\r\n c2l-via: session"]
)
async def test_a_name_in_a_bad_spelling_is_no_request(line: bytes) -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        token = assertion(via=KEY, scope=SCOPE).encode()
        client.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: relay\r\nC2L-Assertion: " + token + b"\r\n"
            + line + b"\r\nContent-Length: 0\r\n\r\n"
        )  # fmt: skip
        status, _ = await client.head()
        assert status == 400
        assert not rig.homes


async def test_trailers_do_not_say_who_it_is_either() -> None:
    async with proxy_rig() as rig:
        await rig.bridge()
        client = await rig.client()
        client.send(headers=[("transfer-encoding", "chunked")], token=assertion(via=KEY, scope=SCOPE))
        client.writer.write(b"2\r\n{}\r\n0\r\nc2l-via: session\r\n\r\n")
        home = await rig.home()
        answer_at_once(home)
        assert (await client.reply()).status == 200
        assert (b"c2l-via", b"session") not in home.head.headers
