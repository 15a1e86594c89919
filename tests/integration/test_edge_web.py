"""The page server in a container of its own answers for files exactly as the embedded edge does."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.service import serve as serve_edge
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.edge.web.service import serve as serve_web
from cloudtolocalllm.edge.web.settings import WebSettings
from cloudtolocalllm.runtime.http1 import Headers, Pool, Response, fetch

REQUESTS: list[tuple[str, str, Headers]] = [
    ("GET", "/", ()),
    ("GET", "/chat", ()),
    ("GET", "/assets/app-1a2b.js", ()),
    ("GET", "/assets/app-1a2b.js", ((b"accept-encoding", b"gzip, br"),)),
    ("GET", "/assets/app-1a2b.js", ((b"accept-encoding", b"br;q=0, gzip"),)),
    ("GET", "/", ((b"if-none-match", b"*"),)),
    ("GET", "/sw.js", ()),
    ("HEAD", "/", ()),
    ("GET", "/missing.js", ()),
    ("GET", "/link.txt", ()),
    ("GET", "/assets/app-1a2b.js.gz", ()),
    ("POST", "/", ((b"content-length", b"0"),)),
    ("GET", "/healthz", ()),
]


@pytest.fixture
def build(tmp_path: Path) -> Path:
    root = tmp_path / "web"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>page</title>")
    (root / "sw.js").write_text("// worker")
    (root / "assets" / "app-1a2b.js").write_text("export {}; " * 20)
    (root / "assets" / "app-1a2b.js.gz").write_bytes(gzip.compress(b"export {}; " * 20))
    (tmp_path / "secret.txt").write_text("outside")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


@pytest.fixture
async def both(build: Path, tmp_path: Path) -> AsyncIterator[tuple[Pool, Pool]]:
    """The page server, and the embedded edge of the same build."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ports = [loop.create_future(), loop.create_future()]
    web = WebSettings(listen=Endpoint(host="127.0.0.1", port=0), root=build, drain_grace=0.2)
    edge = EdgeSettings(
        api=(Endpoint(path=str(tmp_path / "none.sock")),), listen_port=0, web_root=build, drain_grace=0.2
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_web(web, stop, ready=ports[0].set_result))
        group.create_task(serve_edge(edge, stop, ready=ports[1].set_result))
        async with asyncio.timeout(10):
            pools = [Pool(f"127.0.0.1:{await port}") for port in ports]
        try:
            yield pools[0], pools[1]
        finally:
            for pool in pools:
                await pool.close()
            stop.set()


def seen(answer: Response) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return what must be alike; the texts of refusals are each one's own."""
    fields = {name: value for name, value in answer.headers if name not in (b"date", b"content-length")}
    return answer.status, fields, answer.body if answer.status < 400 else b""


@pytest.mark.parametrize(("method", "target", "fields"), REQUESTS, ids=lambda value: str(value)[:40])
async def test_it_answers_as_the_edge_does(
    both: tuple[Pool, Pool], method: str, target: str, fields: Headers
) -> None:
    host = ((b"host", b"localhost"), *fields)
    one, other = [await fetch(pool, method, target, host, timeout=5) for pool in both]
    assert seen(one) == seen(other)


async def test_a_folder_without_a_page_is_refused(tmp_path: Path) -> None:
    settings = WebSettings(listen=Endpoint(host="127.0.0.1", port=0), root=tmp_path)
    with pytest.raises(ValueError, match=r"expected a built page, with index\.html"):
        await serve_web(settings, asyncio.Event())
