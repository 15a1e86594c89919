"""The local side: who may ask, what is there, and how HTTP's corners come out."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from tests.support.connect_parts import at_home, connected, pair_with, url_of
from tests.support.eventually import eventually
from tests.support.small_home import Run, SmallHome, scripted, small_home

from cloudtolocalllm.connect.local import LocalExchange
from cloudtolocalllm.connect.service import Connect, PortTakenError
from cloudtolocalllm.runtime.http1 import Request
from cloudtolocalllm.runtime.http1.messages import Body, BodyKind
from cloudtolocalllm.sealed.bhttp import RequestHead

CHAT = {"model": "tiny", "messages": []}


class Echo:
    """An engine that tells what it was asked."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.contents: list[bytes] = []

    async def __call__(self, head: RequestHead, content: bytes, run: Run) -> None:
        self.heads.append(head)
        self.contents.append(content)
        run.fields = ((b"content-type", b"text/plain"), (b"x-engine", b"yes"), (b"c2l-inside", b"no"))
        run.status = 204 if head.path.endswith(b"/delete") else 200
        if run.status == 200:
            run.data += head.path


@pytest.fixture
def engine() -> Echo:
    return Echo()


@pytest.fixture
async def home(engine: Echo) -> AsyncIterator[SmallHome]:
    async with small_home(engine) as home:
        yield home


@pytest.fixture
async def laptop(home: SmallHome, tmp_path: Path) -> AsyncIterator[Connect]:
    more = {"origins": ("http://app.test",), "hosts": ("laptop.test",), "seed": False}
    async with at_home(tmp_path, home, **more) as connect:
        yield connect


async def request(connect: Connect, method: str, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.request(method, url_of(connect) + path, **more)


@pytest.mark.parametrize(
    ("method", "path", "inside"),
    [
        ("POST", "/api/chat", "/ollama/api/chat"),
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/messages", "/anthropic/v1/messages"),
        ("POST", "/anthropic/v1/messages", "/anthropic/v1/messages"),
        ("GET", "/", "/ollama/"),
        ("GET", "/api/version", "/ollama/api/version"),
    ],
)
async def test_where_a_path_leads(method: str, path: str, inside: str, laptop: Connect) -> None:
    answer = await request(laptop, method, path, json=CHAT if method == "POST" else None)
    assert answer.text == inside
    assert answer.headers["x-engine"] == "yes"
    assert "c2l-inside" not in answer.headers


@pytest.mark.parametrize("path", ["/nothing", "/v2/chat", "/c2l/keys", "/ollama/api/tags", "/apichat"])
async def test_what_is_not_there(path: str, laptop: Connect, home: SmallHome) -> None:
    answer = await request(laptop, "GET", path)
    assert answer.status_code == 404
    assert "/api/" in answer.json()["detail"]
    assert home.asked == []


async def test_head_has_no_content(laptop: Connect) -> None:
    answer = await request(laptop, "HEAD", "/")
    assert answer.status_code == 200
    assert answer.content == b""


async def test_an_answer_without_content(laptop: Connect) -> None:
    answer = await request(laptop, "DELETE", "/api/delete", json={"model": "tiny"})
    assert answer.status_code == 204
    assert answer.content == b""


async def test_what_is_about_this_computer_stays_here(laptop: Connect, engine: Echo) -> None:
    fields = {"authorization": "Bearer mine", "cookie": "a=b", "x-custom": "kept", "c2l-exchange": "x", "date": "now"}
    await request(laptop, "POST", "/api/chat", json=CHAT, headers=fields)
    (head,) = engine.heads
    names = [name for name, _ in head.fields]
    assert (b"x-custom", b"kept") in head.fields
    assert not {b"authorization", b"cookie", b"host", b"origin"} & set(names)
    assert names.count(b"date") == 1
    assert names.count(b"c2l-exchange") == 1
    assert json.loads(engine.contents[0]) == CHAT


async def test_content_of_unknown_length(laptop: Connect, engine: Echo) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"mod', b'el":', b'"tiny"}'):
            yield piece
            await asyncio.sleep(0.01)

    answer = await request(laptop, "POST", "/api/chat", content=pieces())
    assert answer.status_code == 200
    assert engine.contents == [b'{"model":"tiny"}']


async def test_more_than_may_be(laptop: Connect, home: SmallHome) -> None:
    fields = {"content-length": str(65 * 1024 * 1024)}
    reader, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"POST /api/chat HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode())
    assert b"413" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert home.asked == []


async def test_http_1_0(laptop: Connect) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
    content = json.dumps(CHAT).encode()
    writer.write(b"POST /api/chat HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n/ollama/api/chat")


# --- who may ask ---


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:5", "laptop.test", "LOCALHOST:80"])
async def test_names_of_this_computer(host: str, laptop: Connect) -> None:
    assert (await request(laptop, "GET", "/", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test", "127.0.0.1.nip.io", "192.168.1.5"])
async def test_a_name_that_was_made_to_point_here(host: str, laptop: Connect, home: SmallHome) -> None:
    answer = await request(laptop, "POST", "/api/chat", json=CHAT, headers={"host": host})
    assert answer.status_code == 403
    assert home.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_pages_of_others(fields: dict[str, str], laptop: Connect, home: SmallHome) -> None:
    for method, path in (("POST", "/api/chat"), ("GET", "/c2l/status"), ("OPTIONS", "/api/chat")):
        answer = await request(laptop, method, path, headers=fields)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert home.asked == []


async def test_a_page_that_is_allowed(laptop: Connect) -> None:
    origin = {"origin": "http://app.test"}
    wanted = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await request(laptop, "OPTIONS", "/api/chat", headers=wanted)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "http://app.test"
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    answer = await request(laptop, "POST", "/api/chat", json=CHAT, headers=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://app.test"


async def test_an_allowed_page_can_read_refusals_too(laptop: Connect) -> None:
    for path in ("/nothing", "/c2l/status"):
        answer = await request(laptop, "GET", path, headers={"origin": "http://app.test"})
        assert answer.headers["access-control-allow-origin"] == "http://app.test"


async def test_there_is_no_cors_by_default(laptop: Connect) -> None:
    answer = await request(laptop, "POST", "/api/chat", json=CHAT)
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with small_home(scripted()) as home:
        await pair_with(tmp_path, home.invite())
        async with connected(tmp_path) as one:
            with pytest.raises(PortTakenError, match="--port"):
                async with connected(tmp_path, port=one.port):
                    pass


async def test_a_port_that_this_user_may_not_have(laptop: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(laptop._server, "listen_tcp", refuse)
    with pytest.raises(PortTakenError, match="got PermissionError"):
        await laptop.start()


async def test_too_many_fields_say_nothing_of_the_home(laptop: Connect) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", laptop.port)
    lines = "".join(f"x-{number}: 1\r\n" for number in range(97))
    writer.write(f"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n{lines}\r\n{{}}".encode())
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    assert [home["up"] for home in laptop.status()["homes"]] == [True]


async def test_a_client_that_leaves_at_once_holds_nothing(laptop: Connect) -> None:
    app = laptop._app
    asked = Request("POST", "/api/chat", (), Body(BodyKind.LENGTH, 5), "1.1", True, None, False, b"")
    exchange = LocalExchange(app, asked, "/ollama/api/chat", Mock(), ())
    exchange.on_body(b"12345")
    exchange.on_body_end(())
    exchange.on_disconnect()  # before its task ran at all
    await eventually(lambda: asyncio.sleep(0, app.held), lambda held: held == 0)


async def test_only_this_computer_can_connect(laptop: Connect) -> None:
    names = [sock.getsockname()[0] for listener in laptop._server._listeners for sock in listener.sockets]
    assert names == ["127.0.0.1"]
