"""The edges under test. Another one (nginx) joins by a function like `embedded` and a name in `EDGES`."""

import asyncio
import contextlib
import gzip
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.support.edge_doubles import EdgeUnderTest, Scripted, ScriptedApi, allowed
from tests.support.nginx_server import running_nginx

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.clients import parse_networks
from cloudtolocalllm.edge.limits import Rate
from cloudtolocalllm.edge.origins import parse_origins
from cloudtolocalllm.edge.service import serve
from cloudtolocalllm.edge.settings import EdgeSettings

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Wanted:
    """How an edge is to be set up."""

    api: Path
    web_root: Path
    domain: str = ""
    body_limit: int = 24 * 1024 * 1024
    """More than kernel buffers on the way hold, so that back-pressure shows before it."""
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: str = ""
    """Address ranges, separated by commas."""
    cors_origins: str = ""
    """Origins, separated by commas."""
    limits: dict[str, str] = field(default_factory=dict)
    """Rates by kind ("sign-in", "api", "data", "static"), for clients on this machine too; the others are off."""
    connections: int = 0
    """Open connections of one client; 0 for no limit."""


def settings_of(wanted: Wanted) -> EdgeSettings:
    """Return the settings that every edge gets."""
    return EdgeSettings(
        api=(Endpoint(path=str(wanted.api)),),
        listen_port=0,
        web_root=wanted.web_root,
        domain=wanted.domain,
        data_body_limit=wanted.body_limit,
        api_body_limit=100_000,
        drain_grace=0.2,
        allowed_hosts=wanted.allowed_hosts,
        trusted_proxies=parse_networks(wanted.trusted_proxies),
        cors_origins=parse_origins(wanted.cors_origins),
        limit_sign_in=Rate.parse(wanted.limits.get("sign-in", "off")),
        limit_api=Rate.parse(wanted.limits.get("api", "off")),
        limit_data=Rate.parse(wanted.limits.get("data", "off")),
        limit_static=Rate.parse(wanted.limits.get("static", "off")),
        limit_connections=wanted.connections,
        limit_loopback=True,
    )


@contextlib.asynccontextmanager
async def embedded(wanted: Wanted) -> AsyncIterator[int]:
    """Run the embedded edge; gives its port."""
    settings = settings_of(wanted)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.get_running_loop().create_task(serve(settings, stop, ready=port.set_result))
    try:
        yield await asyncio.wait_for(port, 10)
    finally:
        stop.set()
        await asyncio.wait_for(serving, 10)


@contextlib.asynccontextmanager
async def nginx(wanted: Wanted) -> AsyncIterator[int]:
    """Run nginx, without TLS as the embedded edge; gives its port."""
    with running_nginx(settings_of(wanted)) as server:
        yield server.port


EDGES: dict[str, Callable[[Wanted], AbstractAsyncContextManager[int]]] = {"embedded": embedded, "nginx": nginx}


BEYOND_NGINX = {
    "test_edge_admission.py::test_smuggling_shapes_are_refused_with_security_fields[nginx-bare-lf]": "nginx reads a "
    "bare LF as the end of a line, as RFC 9112 §2.2 lets a recipient, has no setting against it, and shows scripts "
    "only what it has read; tests/integration/test_nginx_requests.py shows that it passes on CRLF only",
    "test_edge_streams.py::test_informational_responses_and_trailers_pass[nginx]": "nginx's proxy module reads past "
    "trailers before 1.27, and knows no 103 before 1.29; Debian's is 1.22. tests/integration/test_nginx_requests.py "
    "shows what becomes of them",
}
"""Tests whose word nginx cannot keep by any means, and why."""


@pytest.hookimpl(tryfirst=True)  # before any is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = {f"{item.path.name}::{item.name}": item for item in items if item.path.parent == HERE}
    for key, item in here.items():
        if key in BEYOND_NGINX:
            item.add_marker(pytest.mark.skip(reason=BEYOND_NGINX[key]))
        if "nginx" in item.name.partition("[")[2].rstrip("]").split("-"):
            item.add_marker(pytest.mark.nginx)
    if any("::" in arg for arg in config.args) or config.getoption("lf", default=False):
        return  # only some of a file's tests were collected
    files = {item.path.name for item in here.values()}
    lost = [key for key in BEYOND_NGINX if key.partition("::")[0] in files and key not in here]
    if lost:
        raise pytest.UsageError(f"expected each of BEYOND_NGINX to be a test, got none called {', '.join(lost)}")


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


class EdgeMaker(Protocol):
    """Runs an edge that is set up as a test wants it."""

    def __call__(self, **wanted: Any) -> AbstractAsyncContextManager[EdgeUnderTest]:
        """Members of Wanted."""
        ...


@pytest.fixture(params=sorted(EDGES))
def make_edge(request: pytest.FixtureRequest, upstreams: tuple[ScriptedApi, Scripted], web_root: Path) -> EdgeMaker:
    api, proxy = upstreams

    @contextlib.asynccontextmanager
    async def make(**wanted: Any) -> AsyncIterator[EdgeUnderTest]:
        async with EDGES[request.param](Wanted(api.path, web_root, **wanted)) as port:
            yield EdgeUnderTest(port, api, proxy, host=wanted.get("domain") or "localhost")

    return make


@pytest.fixture(params=sorted(EDGES))
async def edge_with_domain(
    request: pytest.FixtureRequest, upstreams: tuple[ScriptedApi, Scripted], web_root: Path
) -> AsyncIterator[EdgeUnderTest]:
    api, proxy = upstreams
    async with EDGES[request.param](Wanted(api.path, web_root, domain="llm.example")) as port:
        yield EdgeUnderTest(port, api, proxy, host="llm.example")
