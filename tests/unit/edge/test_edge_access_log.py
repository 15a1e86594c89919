"""What the log tells of requests: enough to find them, nothing that is anybody's."""

import json
import logging
from collections.abc import Iterator

import pytest
from tests.support.edge_memory import MemoryEdge, memory_edge
from tests.support.memory_transport import turns

from cloudtolocalllm.runtime.logs import JsonFormatter

MEMBERS = {"method", "route", "status", "bytes", "seconds", "request_id"}
SECRET = "sEcReT"
FIELDS = (
    f"Authorization: Bearer {SECRET}",
    f"X-Api-Key: {SECRET}",
    f"Cookie: c2l_session={SECRET}",
    f"User-Agent: {SECRET}",
    f"Referer: http://localhost/?{SECRET}",
    f"X-Request-Id: {SECRET} with spaces",
)


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEdge]:
    with memory_edge(monkeypatch, data_body_limit=1000) as made:
        yield made


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator["Lines"]:
    caplog.set_level(logging.DEBUG)
    yield Lines(caplog)
    text = "\n".join(JsonFormatter("edge").format(record) for record in caplog.records)
    assert SECRET not in text


class Lines:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def one(self) -> dict[str, object]:
        (record,) = [record for record in self._caplog.records if record.name == "edge.access"]
        line = json.loads(JsonFormatter("edge").format(record))
        assert set(line) - {"time", "level", "service", "logger", "event"} == MEMBERS
        return {name: line[name] for name in ("method", "route", "status", "bytes")}


TARGETS = [
    (f"GET /healthz?{SECRET}", "health", 200),
    (f"GET /{SECRET}?k={SECRET}", "static", 404),
    (f"POST /{SECRET}", "static", 405),
    (f"GET /internal/{SECRET}", "nothing", 404),
    (f"GET /v1/%2e/{SECRET}", "data", 400),
    (f"GET /ws/tunnel?{SECRET}", "tunnel", 400),
    (f"POST /e2e/%2e/{SECRET}", "data", 400),
]


@pytest.mark.parametrize(("line", "route", "status"), TARGETS)
async def test_what_is_answered_here(edge: MemoryEdge, lines: Lines, line: str, route: str, status: int) -> None:
    await edge.ask(f"{line} HTTP/1.1", "Content-Length: 0", *FIELDS)
    assert lines.one() | {"bytes": 0} == {"method": line.split()[0], "route": route, "status": status, "bytes": 0}


async def test_a_relayed_answer_has_its_one_line_at_its_end(edge: MemoryEdge, lines: Lines) -> None:
    body = json.dumps({"model": SECRET, "prompt": SECRET}).encode()
    target = f"/v1/chat?key={SECRET}"
    _, proxy = await edge.ask_proxy(f"POST {target} HTTP/1.1", f"Content-Length: {len(body)}", *FIELDS, content=body)
    proxy.peer_sends(f"HTTP/1.1 200 OK\r\nX-Model: {SECRET}\r\nContent-Length: 6\r\n\r\n{SECRET}".encode())
    await turns()
    assert lines.one() == {"method": "POST", "route": "data", "status": 200, "bytes": 6}


async def test_of_a_sealed_request_not_even_whom_it_is_for_is_told(edge: MemoryEdge, lines: Lines) -> None:
    fields = ("Content-Type: message/ohttp-chunked-req", f"Content-Length: {len(SECRET)}", *FIELDS)
    _, proxy = await edge.ask_proxy(f"POST /e2e/{SECRET} HTTP/1.1", *fields, content=SECRET.encode())
    proxy.peer_sends(f"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{SECRET}".encode())
    await turns()
    assert lines.one() == {"method": "POST", "route": "data", "status": 200, "bytes": 6}


async def test_an_upstreams_garbage_is_not_quoted(edge: MemoryEdge, lines: Lines) -> None:
    _, proxy = await edge.ask_proxy(f"GET /v1/x?{SECRET} HTTP/1.1", *FIELDS)
    proxy.peer_sends(f"{SECRET} is no answer\r\n\r\n".encode())
    await turns()
    assert lines.one()["status"] == 503


async def test_a_client_that_leaves_is_499(edge: MemoryEdge, lines: Lines) -> None:
    client, _ = await edge.ask_proxy(f"GET /v1/x?{SECRET} HTTP/1.1", *FIELDS)
    client.abort()
    await turns()
    assert lines.one()["status"] == 499


async def test_an_unreadable_verdict_is_not_quoted(edge: MemoryEdge, lines: Lines) -> None:
    await edge.ask(f"GET /v1/x?{SECRET} HTTP/1.1", *FIELDS)
    fields = f"C2L-Endpoint: {SECRET}\r\nC2L-Assertion: {SECRET}\r\nContent-Length: 0"
    edge.api.last.peer_sends(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode())
    await turns(10)
    assert lines.one()["status"] == 500
