"""The edges under test. Another one (nginx) joins by a function like `embedded` and a name in `EDGES`."""

import asyncio
import contextlib
import gzip
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.edge_doubles import EdgeUnderTest, Scripted, ScriptedApi, allowed

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.service import serve
from cloudtolocalllm.edge.settings import EdgeSettings


@dataclass(frozen=True)
class Wanted:
    """How an edge is to be set up."""

    api: Path
    web_root: Path
    domain: str = ""
    body_limit: int = 24 * 1024 * 1024
    """More than kernel buffers on the way hold, so that back-pressure shows before it."""


@contextlib.asynccontextmanager
async def embedded(wanted: Wanted) -> AsyncIterator[int]:
    """Run the embedded edge; gives its port."""
    settings = EdgeSettings(
        api=Endpoint(path=str(wanted.api)),
        listen_port=0,
        web_root=wanted.web_root,
        domain=wanted.domain,
        data_body_limit=wanted.body_limit,
        api_body_limit=100_000,
        drain_grace=0.2,
    )
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.get_running_loop().create_task(serve(settings, stop, ready=port.set_result))
    try:
        yield await asyncio.wait_for(port, 10)
    finally:
        stop.set()
        await asyncio.wait_for(serving, 10)


EDGES: dict[str, Callable[[Wanted], AbstractAsyncContextManager[int]]] = {"embedded": embedded}


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-edge-"))  # short: socket paths have a limit
    yield path
    shutil.rmtree(path)


@pytest.fixture
def web_root(folder: Path) -> Path:
    root = folder / "web"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>page</title>")
    (root / "sw.js").write_text("// worker")
    (root / "assets" / "app-1a2b.js").write_text("export {}; " * 20)
    (root / "assets" / "app-1a2b.js.gz").write_bytes(gzip.compress(b"export {}; " * 20))
    (root / "assets" / "app-1a2b.js.br").write_bytes(b"pretend brotli")
    (folder / "secret.txt").write_text("outside")
    (root / "link.txt").symlink_to(folder / "secret.txt")
    return root


@pytest.fixture
async def upstreams(folder: Path) -> AsyncIterator[tuple[ScriptedApi, Scripted]]:
    proxy = Scripted(folder / "proxy.sock")
    api = ScriptedApi(folder / "api.sock", verdict=lambda _: allowed(proxy.path))
    await api.start()
    await proxy.start()
    yield api, proxy
    await proxy.stop()
    await api.stop()


@pytest.fixture(params=sorted(EDGES))
async def edge(
    request: pytest.FixtureRequest, upstreams: tuple[ScriptedApi, Scripted], web_root: Path
) -> AsyncIterator[EdgeUnderTest]:
    api, proxy = upstreams
    async with EDGES[request.param](Wanted(api.path, web_root)) as port:
        yield EdgeUnderTest(port, api, proxy)


@pytest.fixture(params=sorted(EDGES))
async def edge_with_domain(
    request: pytest.FixtureRequest, upstreams: tuple[ScriptedApi, Scripted], web_root: Path
) -> AsyncIterator[EdgeUnderTest]:
    api, proxy = upstreams
    async with EDGES[request.param](Wanted(api.path, web_root, domain="llm.example")) as port:
        yield EdgeUnderTest(port, api, proxy, host="llm.example")
