"""Several replicas of the API behind one edge: they take turns, and a dead one costs nobody an answer."""

from collections.abc import Iterator
from typing import cast

import pytest
from tests.support.edge_memory import ALLOWED, MemoryEdge, MemoryPool, memory_edge
from tests.support.fake_clock import FakeClock
from tests.support.memory_transport import turns

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.replicas import MAX_REPLICAS, SKIP, Replicas, parse_endpoints
from cloudtolocalllm.runtime.http1 import ConnectError, Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pools() -> list[MemoryPool]:
    return [MemoryPool() for _ in range(3)]


@pytest.fixture
def replicas(clock: FakeClock, pools: list[MemoryPool]) -> Replicas:
    return Replicas(cast("list[Pool]", pools), clock.monotonic)


def counts(pools: list[MemoryPool]) -> list[int]:
    return [len(pool.transports) for pool in pools]


async def test_they_take_turns(replicas: Replicas, pools: list[MemoryPool]) -> None:
    for _ in range(6):
        await replicas.acquire()
    assert counts(pools) == [2, 2, 2]


async def test_a_dead_one_is_left_out_for_a_while(
    replicas: Replicas, pools: list[MemoryPool], clock: FakeClock
) -> None:
    pools[1].refusing = 100
    for _ in range(6):
        await replicas.acquire()
    assert pools[1].refusing == 99, "expected it to be asked once only"
    assert sum(counts(pools)) == 6
    pools[1].refusing = 0
    clock.advance(SKIP)
    for _ in range(3):
        await replicas.acquire()
    assert counts(pools)[1] == 1


async def test_those_left_out_are_asked_when_there_is_no_other(replicas: Replicas, pools: list[MemoryPool]) -> None:
    for pool in pools:
        pool.refusing = 1
    with pytest.raises(ConnectError):
        await replicas.acquire()
    await replicas.acquire()
    assert sum(counts(pools)) == 1


@pytest.mark.parametrize("text", ["", ",", "nowhere", "unix:/a,nowhere", ",".join(["unix:/a"] * (MAX_REPLICAS + 1))])
def test_what_is_no_list_of_endpoints_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_endpoints(text)


def test_endpoints_are_separated_by_commas() -> None:
    assert parse_endpoints("unix:/a, 127.0.0.1:80,") == (Endpoint(path="/a"), Endpoint(host="127.0.0.1", port=80))


# a replica that dies over a request


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEdge]:
    with memory_edge(monkeypatch) as made:
        yield made


async def test_a_question_goes_to_the_next(edge: MemoryEdge) -> None:
    client = await edge.ask("GET /api/auth/session HTTP/1.1")
    edge.api.last.peer_closes()
    await turns(10)
    assert len(edge.api.transports) == 2
    edge.api.last.peer_sends(OK)
    await turns(10)
    answer = client.take()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nhi")


async def test_but_only_once(edge: MemoryEdge) -> None:
    client = await edge.ask("GET /api/auth/session HTTP/1.1")
    for _ in range(2):
        edge.api.last.peer_closes()
        await turns(10)
    assert client.take().startswith(b"HTTP/1.1 503 ")
    assert len(edge.api.transports) == 2


@pytest.mark.parametrize(
    ("lines", "content"),
    [
        (("POST /api/auth/sign-out HTTP/1.1",), b""),
        (("PUT /api/auth/x HTTP/1.1", "Content-Length: 2"), b"ab"),
        (("GET /ws/bridge HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"), b""),
    ],
)
async def test_what_could_do_something_twice_does_not(
    edge: MemoryEdge, lines: tuple[str, ...], content: bytes
) -> None:
    client = await edge.ask(*lines, content=content)
    edge.api.last.peer_closes()
    await turns(10)
    assert client.take().startswith(b"HTTP/1.1 503 ")
    assert len(edge.api.transports) == 1


async def test_an_answer_that_has_begun_is_not_begun_again(edge: MemoryEdge) -> None:
    client = await edge.ask("GET /api/streaming/events HTTP/1.1")
    edge.api.last.peer_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    await turns(10)
    edge.api.last.peer_closes()
    await turns(10)
    assert len(edge.api.transports) == 1
    assert client.is_closing()


async def test_the_decision_is_asked_of_the_next(edge: MemoryEdge) -> None:
    client = await edge.ask("POST /v1/x HTTP/1.1", "Content-Length: 2", content=b"ab")
    edge.api.last.peer_closes()
    await turns(10)
    edge.api.last.peer_sends(ALLOWED)
    await turns(10)
    edge.proxy.last.peer_sends(OK)
    await turns(10)
    assert client.take().startswith(b"HTTP/1.1 200 ")
