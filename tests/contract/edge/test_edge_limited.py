"""Limits by client address: who is counted with whom, what a client is told, and what is not counted."""

import asyncio

import pytest
from tests.contract.edge.conftest import EdgeMaker
from tests.contract.edge.test_edge_admission import check_security
from tests.contract.edge.test_edge_websocket import UPGRADE, echo
from tests.support.edge_doubles import EdgeUnderTest, Message, read_body, read_head

SLOW = "1/h burst 3"
OTHER = "127.0.0.2"


def check_limited(answer: Message, policy: str) -> None:
    assert (answer.status, answer.problem) == (429, "rate-limited")
    assert 1 <= int(answer.one("retry-after") or 0) <= 3600
    assert (answer.one("ratelimit-policy") or "").startswith(f'"{policy}";q=1;w=3600')
    assert (answer.one("ratelimit") or "").startswith(f'"{policy}";r=0;t=')
    assert answer.one("cache-control") == "no-store"
    check_security(answer)


async def statuses(edge: EdgeUnderTest, target: str, count: int, source: str = "127.0.0.1") -> list[int]:
    return [(await edge.get(target, source=source)).status for _ in range(count)]


@pytest.mark.parametrize(
    ("kind", "target", "others"),
    [
        ("sign-in", "/api/auth/sign-in", ["/api/auth/session", "/v1/models", "/"]),
        ("api", "/api/auth/session", ["/api/auth/sign-in", "/v1/models", "/", "/healthz"]),
        ("data", "/v1/models", ["/api/auth/sign-in", "/api/x", "/"]),
        ("static", "/", ["/api/auth/sign-in", "/api/x", "/v1/models"]),
    ],
)
async def test_each_kind_has_its_own_bucket(make_edge: EdgeMaker, kind: str, target: str, others: list[str]) -> None:
    async with make_edge(limits={kind: SLOW}) as edge:
        assert await statuses(edge, target, 3) == [200, 200, 200]
        check_limited(await edge.get(target), kind)
        for other in others:
            assert (await edge.get(other)).status == 200, other
        assert await statuses(edge, target, 1, OTHER) == [200]


STRICT = [
    "/api/auth/sign-in",
    "/api/auth/sign-in/",
    "/api/auth/sign-in?x=/api/y",
    "/api/auth/sign%2din",
    "/api/%61uth/sign-in",
    "/api/auth/oidc/start",
    "/api/auth/oidc/callback?code=x&state=y",
    "/api/bridge/pairing/device",
    "/api/bridge/pairing/loopback",
    "/api/bridge/pairing/requests/BCDF-GHJK",
    "/api/bridge/pairing/requests/x/approve",
]
NOT_STRICT = [
    "/api/auth/session",
    "/api/auth/sign-out",
    "/api/auth/oidc/back-channel-logout",
    "/api/bridge",
    "/api/bridge/pairing/token",
    "/readyz",
]


async def test_what_lets_people_and_bridges_in_shares_one_strict_bucket(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"sign-in": f"1/h burst {len(STRICT)}"}) as edge:
        for target in STRICT:
            assert (await edge.get(target)).status == 200, target
        for target in STRICT:
            assert (await edge.get(target)).status == 429, target
        for target in NOT_STRICT:
            assert (await edge.get(target)).status == 200, target
        assert len(edge.api.requests) == len(STRICT) + len(NOT_STRICT)


async def test_what_is_limited_reaches_nobody(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"data": SLOW}) as edge:
        assert await statuses(edge, "/v1/models", 6) == [200] * 3 + [429] * 3
        assert (len(edge.api.questions), len(edge.proxy.requests)) == (3, 3)


async def test_refused_requests_count_and_a_connection_lives_on(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"api": SLOW}) as edge:
        reader, writer = await edge.connect()
        seen = []
        for host in ("evil.example", "evil.example", "localhost", "localhost", "localhost"):
            writer.write(edge.head("GET", "/api/x", host=host))
            answer = await read_head(reader)
            await read_body(reader, answer)
            seen.append(answer.status)
        assert seen == [421, 421, 200, 429, 429]
        writer.close()


async def test_waiting_as_told_is_enough(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"api": "1/s burst 1"}) as edge:
        assert await statuses(edge, "/api/x", 2) == [200, 429]
        answer = await edge.get("/api/x")
        await asyncio.sleep(int(answer.one("retry-after") or 0))
        assert await statuses(edge, "/api/x", 1) == [200]


async def test_upgrades_count(make_edge: EdgeMaker) -> None:
    async with make_edge(limits={"data": SLOW, "api": SLOW}) as edge:
        for target, kind in (("/ws/tunnel", "data"), ("/ws/bridge", "api")):
            for _ in range(3):
                assert (await edge.get(target, *UPGRADE)).status == 200  # the doubles do not switch
            check_limited(await edge.get(target, *UPGRADE), kind)


# --- connections ---


async def told(reader: asyncio.StreamReader) -> Message | None:
    try:
        answer = await read_head(reader)
        await read_body(reader, answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return answer


async def test_connections_of_one_client_are_bounded(make_edge: EdgeMaker) -> None:
    async with make_edge(connections=4) as edge:
        held = [await edge.connect() for _ in range(4)]
        for reader, writer in held:
            writer.write(edge.head("GET", "/healthz"))
            assert (await told(reader)) is not None
        answer = await edge.get("/healthz")
        assert (answer.status, answer.problem) == (429, "rate-limited")
        assert answer.one("connection") == "close"
        assert answer.one("retry-after")
        check_security(answer)
        assert (await edge.get("/healthz", source=OTHER)).status == 200
        held.pop()[1].close()
        for _ in range(100):  # the edge sees the end a moment later, and that of the refused one
            if (await edge.get("/healthz")).status == 200:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("a closed connection still counts")
        for _, writer in held:
            writer.close()


async def test_far_too_many_are_not_even_told(make_edge: EdgeMaker) -> None:
    async with make_edge(connections=2) as edge:
        held = [await edge.connect() for _ in range(12)]
        answers = [await told(reader) if number >= 2 else None for number, (reader, _) in enumerate(held)]
        assert sum(answer is not None for answer in answers) <= 2
        assert all(answer is None or answer.status == 429 for answer in answers)
        for reader, writer in held[:2]:
            writer.write(edge.head("GET", "/healthz"))
            answer = await told(reader)
            assert answer is not None
            assert answer.status == 200
        for _, writer in held:
            writer.close()


async def test_a_websocket_counts_until_it_ends(make_edge: EdgeMaker) -> None:
    async with make_edge(connections=1) as edge:
        edge.proxy.script = echo
        reader, writer = await edge.connect()
        writer.write(edge.head("GET", "/ws/tunnel", *UPGRADE))
        assert (await read_head(reader)).status == 101
        assert (await edge.get("/healthz")).status == 429
        writer.close()
        for _ in range(100):
            if (await edge.get("/healthz")).status == 200:
                return
            await asyncio.sleep(0.02)
        pytest.fail("a closed WebSocket still counts")
