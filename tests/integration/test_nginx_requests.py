"""What nginx does beyond the contract that it shares with the embedded edge (tests/contract/edge)."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.support.edge_doubles import (
    EdgeUnderTest,
    Message,
    Scripted,
    ScriptedApi,
    allowed,
    read_body,
    read_chunk,
    read_head,
)
from tests.support.eventually import eventually
from tests.support.nginx_server import NginxServer, running_nginx

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.limits import Rate
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.workers import accepting
from cloudtolocalllm.edge.settings import EdgeSettings

pytestmark = pytest.mark.nginx
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
OTHER = "127.0.0.2"


class Site(EdgeUnderTest):
    """An nginx with what stands behind it, and its own words."""

    server: NginxServer


Make = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-ngx-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def make(folder: Path) -> AsyncIterator[Make]:
    proxy = Scripted(folder / "proxy.sock")
    api = ScriptedApi(folder / "api.sock", verdict=lambda _: allowed(proxy.path))
    await api.start()
    await proxy.start()

    @contextlib.asynccontextmanager
    async def run(nginx: NginxSettings | None = None, **settings: Any) -> AsyncIterator[Site]:
        values = {"api": (Endpoint(path=str(api.path)),), "limit_connections": 0, "limit_loopback": True}
        with running_nginx(EdgeSettings(**{**values, **settings}), nginx) as server:
            site = Site(server.port, api, proxy)
            site.server = server
            try:
                yield site
            finally:
                site.abort()

    yield run
    await proxy.stop()
    await api.stop()


@pytest.fixture
async def site(make: Make) -> AsyncIterator[Site]:
    async with make() as found:
        yield found


# --- where nginx reads in another way than the embedded edge ---


async def test_lines_that_end_in_lf_go_on_with_crlf(site: Site) -> None:
    raw: list[bytes] = []

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        raw.append("\n".join([request.line, *request.fields]).encode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    site.proxy.script = script
    await site.send(b"GET /v1/x HTTP/1.1\nHost: localhost\nX-One: 1\nX-Two: 2\n\n")
    (request,) = site.proxy.requests  # read with CRLF alone
    assert (request.one("x-one"), request.one("x-two")) == ("1", "2")
    assert b"\r" not in raw[0]


async def test_trailers_are_dropped_and_the_rest_is_whole(site: Site) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        await read_body(reader, request)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n")

    site.proxy.script = script
    answer = await site.send(
        site.head("POST", "/v1/x", "Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n"
    )
    assert (answer.body, answer.one("trailer:x-down")) == (b"ok", None)
    assert (site.proxy.requests[0].body, site.proxy.requests[0].one("trailer:x-up")) == (b"hi", None)


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"103 Early Hints"])
@pytest.mark.parametrize("fields", [(), ("Connection: upgrade", "Upgrade: h2c")])
async def test_nothing_of_an_upstream_passes_unread_after_a_head_that_is_not_final(
    site: Site, status: bytes, fields: tuple[str, ...]
) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 " + status + b"\r\nUpgrade: h2c\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n")

    site.proxy.script = script
    reader, writer = await site.connect()
    writer.write(site.head("GET", "/v1/x", *fields))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


# --- the path that a client sends chooses nothing by itself ---


@pytest.mark.parametrize(
    "target",
    [
        "/_c2l/api",
        "/_c2l/authorize",
        "/_c2l/data",
        "/_c2l/refuse/400",
        "/%5fc2l/authorize",
        "/_c2l/again?x",
        "/_c2l/x",
    ],
)
async def test_nginxs_own_locations_are_closed(site: Site, target: str) -> None:
    answer = await site.get(target, "C2L-Fresh: 1")
    assert (answer.status, answer.problem) == (404, "not-found")
    assert site.api.requests == site.api.questions == site.proxy.requests == []


@pytest.mark.parametrize("target", ["/%61pi/x", "/a%70i/auth/sign-in", "/%76%31/models", "/%69nternal/authorize"])
async def test_escapes_make_no_other_route(site: Site, target: str) -> None:
    for fields in ((), ("Origin: https://evil.example",)):
        answer = await site.get(target, *fields)
        assert answer.status == 404
    assert site.api.requests == site.api.questions == site.proxy.requests == []


@pytest.mark.parametrize("field", ["X-Accel-Redirect: /_c2l/api", "X-Accel-Limit-Rate: 1", "X-Accel-Expires: 9"])
@pytest.mark.parametrize("target", ["/v1/x", "/api/x"])
async def test_an_upstream_does_not_command_nginx(site: Site, target: str, field: str) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        if request.target == "/internal/authorize":
            site.api.questions.append(request)
            writer.write(site.api.verdict(request))
        else:
            writer.write(f"HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 4\r\n\r\nhome".encode())

    site.proxy.script = site.api.script = script
    answer = await site.get(target)
    assert (answer.status, answer.body) == (200, b"home")
    assert answer.one(field.partition(":")[0].lower()) is None


async def test_the_apis_own_event_streams_stay_unbuffered_in_front(site: Site) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nContent-Length: 0\r\n\r\n")

    site.api.script = script
    assert (await site.get("/api/streaming/events")).one("x-accel-buffering") == "no"


async def test_two_credentials_reach_the_api_as_two(site: Site) -> None:
    await site.get("/v1/x", "X-Api-Key: one", "X-Api-Key: two")
    assert site.api.questions[0].fields["x-api-key"] == ["one", "two"]


async def test_fields_beyond_ascii_pass_as_they_are(site: Site) -> None:
    await site.send(site.head("GET", "/v1/x", "X-Odd: caf\xe9 \xff", "X-Utf: \xc3\xa9"))
    (request,) = site.proxy.requests
    assert (request.one("x-odd"), request.one("x-utf")) == ("caf\xe9 \xff", "\xc3\xa9")


# --- replicas and proxies that go ---


async def test_a_large_request_to_a_dead_endpoint_is_told_to_come_again(site: Site, folder: Path) -> None:
    site.api.verdict = lambda question: allowed(
        site.proxy.path if question.one("c2l-fresh") else folder / "dead.sock"
    )
    reader, writer = await site.connect()
    writer.write(site.head("POST", "/v1/x", "Content-Length: 3000000") + b"x" * 100_000)
    answer = await read_head(reader)
    await read_body(reader, answer)
    assert (answer.status, answer.problem, answer.one("retry-after")) == (503, "overloaded", "1")
    assert [question.one("c2l-fresh") for question in site.api.questions] == [None, "1"]
    assert site.proxy.requests == []
    writer.close()


@pytest.mark.parametrize("size", [1, 51_200, 262_144])
async def test_a_request_of_usual_size_is_sent_once_more_however_slowly_it_came(
    site: Site, folder: Path, size: int
) -> None:
    site.api.verdict = lambda question: allowed(
        site.proxy.path if question.one("c2l-fresh") else folder / "dead.sock"
    )
    body = (bytes(range(256)) * 1024)[:size]
    reader, writer = await site.connect()
    writer.write(site.head("POST", "/v1/x", f"Content-Length: {size}"))

    async def questions() -> int:
        return len(site.api.questions)

    await eventually(questions, bool)  # the content comes after the question
    writer.write(body[: size // 2])
    await asyncio.sleep(0.05)
    writer.write(body[size // 2 :])
    answer = await read_head(reader)
    assert answer.status == 200
    assert [request.body for request in site.proxy.requests] == [body]
    writer.close()


async def test_a_tunnel_to_a_dead_endpoint_is_asked_about_once_more(site: Site, folder: Path) -> None:
    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")

    site.proxy.script = script
    site.api.verdict = lambda question: allowed(
        site.proxy.path if question.one("c2l-fresh") else folder / "dead.sock"
    )
    reader, writer = await site.connect()
    writer.write(site.head("GET", "/ws/tunnel", "Connection: upgrade", "Upgrade: websocket"))
    assert (await read_head(reader)).status == 101
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_an_endpoint_may_be_an_address(site: Site) -> None:
    server = await asyncio.start_server(site.proxy._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fields = f"C2L-Endpoint: 127.0.0.1:{port}\r\nC2L-Assertion: v1.claims.mac\r\nContent-Length: 0"
    site.api.verdict = lambda _: f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode()
    assert (await site.get("/v1/models")).body == b"/v1/models"
    server.close()
    await server.wait_closed()
    site.api.verdict = lambda question: (
        allowed(site.proxy.path) if question.one("c2l-fresh") else f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode()
    )
    assert (await site.get("/v1/models")).status == 200


@pytest.mark.parametrize(
    "endpoint",
    [
        "unix:/x:/etc",
        "unix:/a b",
        "unix:x",
        "127.0.0.1",
        "127.0.0.1:80/x",
        "evil.example:80/",
        "a@b:80",
        "http://x:80",
    ],
)
async def test_what_is_no_endpoint_is_sent_nothing(site: Site, endpoint: str) -> None:
    site.api.verdict = lambda _: (
        f"HTTP/1.1 200 OK\r\nC2L-Endpoint: {endpoint}\r\nC2L-Assertion: a\r\nContent-Length: 0\r\n\r\n".encode()
    )
    answer = await site.get("/v1/models")
    assert (answer.status, answer.problem) == (500, "internal")


async def test_a_replica_that_is_gone_costs_no_request(make: Make, folder: Path) -> None:
    async with make(api=(Endpoint(path=str(folder / "api.sock")), Endpoint(path=str(folder / "gone.sock")))) as site:
        statuses = [(await site.get(target)).status for target in ("/api/x", "/v1/x") * 10]
        assert statuses == [200] * 20


@pytest.mark.parametrize(("method", "reached"), [("GET", 2), ("POST", 1)])
async def test_what_may_be_repeated_is_when_a_replica_dies_over_it(
    make: Make, folder: Path, method: str, reached: int
) -> None:
    async def die(request: Message, reader: Reader, writer: Writer) -> None:
        seen.append(request)
        writer.transport.abort()

    seen: list[Message] = []
    others = [Scripted(folder / f"dying{n}.sock", script=die) for n in range(2)]
    for other in others:
        await other.start()
    async with make(api=tuple(Endpoint(path=str(other.path)) for other in others)) as site:
        answer = await site.send(site.head(method, "/api/x", "Content-Length: 0"))
        assert (answer.status, answer.problem) == (503, "connection-lost")
        assert len(seen) == reached
    for other in others:
        await other.stop()


# --- the page, where another service has it ---


@pytest.fixture
async def page(folder: Path) -> AsyncIterator[Scripted]:
    found = Scripted(folder / "page.sock")
    await found.start()
    yield found
    await found.stop()


async def test_a_page_for_a_slow_reader_is_kept_nowhere(make: Make, page: Scripted) -> None:
    size = 8_000_000  # more than all buffers on the way

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(bytes(size))

    page.script = script
    async with make(NginxSettings(web=Endpoint(path=str(page.path)), error_log_level="warn")) as site:
        reader, writer = await asyncio.open_connection(*("127.0.0.1", site.port), limit=4096)
        writer.write(site.head("GET", "/assets/app.js"))
        answer = await read_head(reader)
        await asyncio.sleep(0.3)  # time to fill a file
        await read_body(reader, answer)
        writer.close()
        assert len(answer.body) == size
        assert "buffered to a temporary file" not in site.server.said()


async def test_a_page_gets_no_credentials(make: Make, page: Scripted) -> None:
    names = ("Authorization", "Cookie", "DPoP", "X-Api-Key", "C2L-Assertion")
    async with make(NginxSettings(web=Endpoint(path=str(page.path)))) as site:
        assert (await site.get("/", *(f"{name}: secret" for name in names), "X-Other: passes")).status == 200
    (request,) = page.requests
    assert request.one("x-other") == "passes"
    assert [request.one(name.lower()) for name in names] == [None] * len(names)


# --- limits ---


async def test_workers_count_together(make: Make) -> None:
    async with make(NginxSettings(workers=2), limit_api=Rate(1, "h", 6)) as site:
        statuses = [(await site.get("/api/x")).status for _ in range(10)]
        assert statuses == [200] * 6 + [429] * 4
        assert (await site.get("/api/x", source=OTHER)).status == 200


async def test_a_reload_forgets_no_count(make: Make) -> None:
    async with make(limit_api=Rate(1, "h", 2)) as site:
        assert [(await site.get("/api/x")).status for _ in range(2)] == [200, 200]
        former = accepting(site.server.pid)
        site.server.reload()

        async def serving() -> set[int]:
            return accepting(site.server.pid)

        await eventually(serving, lambda pids: pids and not pids & former)
        for _ in range(10):
            assert (await site.get("/api/x")).status == 429


async def test_connections_over_ipv6_are_counted(make: Make) -> None:
    async def ask() -> tuple[Message, Writer]:
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        answer = await read_head(reader)
        await read_body(reader, answer)
        return answer, writer

    async def third() -> int:
        answer, writer = await ask()
        writer.close()
        return answer.status

    async with make(listen_host="::1", limit_connections=2) as site:
        port = site.port
        held = [writer for _ in range(2) for answer, writer in [await ask()] if answer.status == 200]
        await eventually(third, lambda status: status == 429)
        held.pop().close()
        await eventually(third, lambda status: status == 200)
        held.pop().close()


async def test_what_cannot_be_counted_is_not_let_in(make: Make) -> None:
    async with make(limit_data=Rate(1, "h", 2)) as site:
        (site.server.nginx.state_dir / "limits" / "data").unlink()
        answer = await site.get("/v1/x")
        assert (answer.status, answer.problem) == (503, "overloaded")
        assert site.api.questions == []
        assert (await site.get("/healthz")).status == 200


async def test_slow_heads_starve_nobody(make: Make) -> None:
    async with make(limit_connections=64) as site:
        slow = [await site.connect() for _ in range(300)]
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for _ in range(3):
            for _, writer in slow:
                writer.write(b"a")
            async with asyncio.timeout(5):
                assert (await site.get("/v1/models", source=OTHER)).status == 200
        assert (await site.get("/healthz")).status == 429
        for _, writer in slow:
            writer.transport.abort()


async def test_slow_content_starves_nobody(make: Make) -> None:
    async with make(limit_connections=0) as site:
        slow = [await site.connect() for _ in range(300)]
        for _, writer in slow:
            writer.write(site.head("POST", "/v1/x", "Content-Length: 1000") + b"a")
        async with asyncio.timeout(10):
            assert (await site.get("/v1/models", source=OTHER)).status == 200
        for _, writer in slow:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["X: " + "a" * 40_000], 431),
        (["X: " + "a" * 8_000] * 5, 431),
        (["X: y"] * 101, 431),
        (["Cookie: " + "a=b; " * 10_000], 431),
    ],
)
async def test_bombs_in_the_head(site: Site, fields: list[str], status: int) -> None:
    answer = await site.get("/v1/models", *fields)
    assert (answer.status, answer.problem, answer.one("connection")) == (status, "too-large", "close")
    assert site.api.questions == []


async def test_bombs_in_the_content(site: Site) -> None:
    answer = await site.send(site.head("POST", "/api/x", "Content-Length: 99999999999"))
    assert (answer.status, answer.problem) == (413, "too-large")
    answer = await site.send(site.head("POST", "/healthz", "Content-Length: 99999999999"))
    assert answer.status == 200  # nobody reads it
    chunks = b"1;" + b"a" * 9000 + b"\r\nx\r\n"
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        answer = await site.send(site.head("POST", "/api/x", "Transfer-Encoding: chunked") + chunks * 100 + b"zz\r\n")
        assert answer.status in (400, 413)
    assert (await site.get("/healthz")).status == 200


# --- the log ---


async def test_the_log_tells_what_happened_and_nothing_of_whom(make: Make) -> None:
    async with make() as site:
        await site.get("/api/auth/oidc/callback?code=SECRET&state=SECRET", "X-Request-Id: abc-1")
        await site.get('/SECRET"\\', "Authorization: Bearer SECRET", "Referer: http://x/SECRET")
        await site.api.stop()
        site.api.path.unlink()
        await site.get("/v1/x?q=SECRET", "Origin: http://SECRET.example")
        await site.get("/v1/x?q=SECRET")
        await site.get("/api/x?q=SECRET")
        site.server.stop()
        said = site.server.said()
    assert "SECRET" not in said
    assert "127.0.0.1" not in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [(line["route"], line["status"], line["problem"]) for line in lines] == [
        ("api", "200", ""),
        ("static", "400", "bad-request"),
        ("data", "403", "forbidden"),
        ("data", "503", "overloaded"),
        ("api", "503", "overloaded"),
    ]
    assert lines[0]["request_id"] == "abc-1"


# --- reloads ---


async def test_a_reload_cuts_no_stream(site: Site) -> None:
    step: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(request: Message, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := await asyncio.wait_for(step.get(), 10):
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")

    site.proxy.script = script
    reader, writer = await site.connect()
    writer.write(site.head("GET", "/v1/x"))
    await read_head(reader)
    for n in range(4):
        step.put_nowait(b"part %d" % n)
        assert await read_chunk(reader) == b"part %d" % n
        site.server.reload()
        assert (await site.get("/healthz")).status == 200
    step.put_nowait(b"")
    assert await read_chunk(reader) == b""
    writer.close()
