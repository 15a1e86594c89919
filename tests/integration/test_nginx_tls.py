"""nginx with TLS: what it speaks, how it starts without a certificate, and how it takes one that comes."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.edge_doubles import Message, Scripted, ScriptedApi, allowed, read_body, read_chunk, read_head
from tests.support.eventually import eventually
from tests.support.nginx_server import NginxServer, require_nginx, running_nginx
from tests.support.ports import free_port
from tests.support.require import require

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx import outside, service
from cloudtolocalllm.edge.nginx.outside import Outside
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, IN_USE, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.service import STAMP, serve
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import make_placeholder
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet

pytestmark = pytest.mark.nginx
DOMAIN = "llm.example"
LAME = 0.05


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-tls-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def upstreams(folder: Path) -> AsyncIterator[tuple[ScriptedApi, Scripted]]:
    proxy = Scripted(folder / "proxy.sock")
    api = ScriptedApi(folder / "api.sock", verdict=lambda _: allowed(proxy.path))
    await api.start()
    await proxy.start()
    yield api, proxy
    await proxy.stop()
    await api.stop()


def certificate(folder: Path) -> Path:
    """Make a pair that is its own authority; return the folder."""
    make_placeholder(folder, DOMAIN, SystemClock())
    return folder


def settings(folder: Path, api: ScriptedApi, *, connections: int = 256) -> tuple[EdgeSettings, NginxSettings]:
    edge = EdgeSettings(
        api=(Endpoint(path=str(api.path)),),
        listen_port=free_port(),
        domain=DOMAIN,
        limit_connections=connections,
        drain_grace=2.0,
    )
    return edge, NginxSettings(certificate_dir=folder / "certs", tls_port=free_port(), public_tls_port=8443)


@pytest.fixture(params=[0, 256], ids=["direct", "counted"])
def server(
    request: pytest.FixtureRequest, folder: Path, upstreams: tuple[ScriptedApi, Scripted]
) -> Iterator[NginxServer]:
    edge, nginx = settings(folder, upstreams[0], connections=request.param)
    certificate(folder / "certs")
    with running_nginx(edge, nginx) as found:
        yield found


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "certs" / CERTIFICATE))


async def ask(
    port: int, target: str, *fields: str, context: ssl.SSLContext | None = None, host: str = DOMAIN
) -> Message:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=DOMAIN if context else None
    )
    writer.write("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode())
    answer = await read_head(reader)
    await read_body(reader, answer)
    writer.close()
    return answer


async def test_it_serves_over_tls_and_says_so(
    server: NginxServer, folder: Path, upstreams: tuple[ScriptedApi, Scripted]
) -> None:
    answer = await ask(server.port, "/v1/models", context=trusting(folder))
    assert (answer.status, answer.body) == (200, b"/v1/models")
    assert answer.one("strict-transport-security") == "max-age=31536000; includeSubDomains"
    await ask(server.port, "/api/x", context=trusting(folder))
    request = upstreams[0].requests[-1]
    assert (request.one("x-forwarded-proto"), request.one("x-forwarded-for")) == ("https", "127.0.0.1")


async def test_errors_have_the_strict_fields_too(server: NginxServer, folder: Path) -> None:
    for host, status in (("evil.example", 421), ("", 400)):
        answer = await ask(server.port, "/", context=trusting(folder), host=host)
        assert answer.status == status
        assert answer.one("strict-transport-security")


async def test_origins_are_judged_by_the_scheme_spoken(server: NginxServer, folder: Path) -> None:
    for origin, status in ((f"https://{DOMAIN}", 200), (f"http://{DOMAIN}", 403)):
        answer = await ask(server.port, "/api/x", f"Origin: {origin}", context=trusting(folder))
        assert answer.status == status


@pytest.mark.parametrize(
    ("version", "works"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_versions(server: NginxServer, folder: Path, version: ssl.TLSVersion, works: bool) -> None:
    context = trusting(folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if works:
        assert (await ask(server.port, "/healthz", context=context)).status == 200
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(server.port, "/healthz", context=context)


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
async def test_weak_ciphers_are_refused(server: NginxServer, folder: Path, cipher: str) -> None:
    context = trusting(folder)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await ask(server.port, "/healthz", context=context)


async def curl(folder: Path, port: int, *arguments: str) -> str:
    program = shutil.which("curl")
    require(program, "curl", "apt-get install curl")
    assert program is not None
    command = [program, "-sS", "--max-time", "10", "--cacert", str(folder / "certs" / CERTIFICATE)]
    command += ["--resolve", f"{DOMAIN}:{port}:127.0.0.1", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 15)
    return out.decode()


async def test_http_2(server: NginxServer, folder: Path, upstreams: tuple[ScriptedApi, Scripted]) -> None:
    url = f"https://{DOMAIN}:{server.port}"
    shown = ("--http2", "-w", "\n%{http_version} %{http_code}")
    assert await curl(folder, server.port, *shown, f"{url}/v1/models?x") == "/v1/models?x\n2 200"
    out = await curl(folder, server.port, *shown, "-d", "x" * 100_000, f"{url}/v1/chat/completions")
    assert out == "/v1/chat/completions\n2 200"
    assert len(upstreams[1].requests[-1].body) == 100_000
    out = await curl(folder, server.port, *shown, "--path-as-is", f"{url}/v1/../api/x")
    assert out.endswith("2 400")
    out = await curl(folder, server.port, *shown, "-H", "Host: evil.example", f"{url}/v1/models")
    assert out.endswith("2 421")


async def test_an_upgrade_over_tls(
    server: NginxServer, folder: Path, upstreams: tuple[ScriptedApi, Scripted]
) -> None:
    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data)
        raise ConnectionResetError

    upstreams[1].script = script
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=trusting(folder), server_hostname=DOMAIN
    )
    writer.write(
        f"GET /ws/tunnel HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
    )
    assert (await read_head(reader)).status == 101
    writer.write(b"there and back")
    assert await asyncio.wait_for(reader.readexactly(14), 5) == b"there and back"
    writer.close()


# --- in clear ---


async def test_in_clear_it_leads_to_tls_and_nothing_else(
    server: NginxServer, upstreams: tuple[ScriptedApi, Scripted]
) -> None:
    port = server.edge.listen_port
    for host in (DOMAIN, f"app.{DOMAIN}"):
        answer = await ask(port, "/v1/models?x=y", host=host)
        assert answer.status == 308
        assert answer.one("location") == f"https://{host}:8443/v1/models?x=y"
        assert answer.one("x-frame-options") == "DENY"
    answer = await ask(port, "/v1/models", host="evil.example")
    assert (answer.status, answer.problem, answer.one("location")) == (421, "not-found", None)
    assert upstreams[0].requests == upstreams[0].questions == []


async def test_challenges_are_served_in_clear(server: NginxServer) -> None:
    place = server.nginx.acme_root / ".well-known" / "acme-challenge"
    place.mkdir(parents=True)
    (place / "token").write_text("token.thumbprint")
    (place / "link").symlink_to(server.folder / "nginx.conf")
    (server.nginx.acme_root / "near").write_text("worker_processes")
    for host in (DOMAIN, f"app.{DOMAIN}", "192.0.2.7"):
        answer = await ask(server.edge.listen_port, "/.well-known/acme-challenge/token", host=host)
        assert (answer.status, answer.body) == (200, b"token.thumbprint")
    climbs = ("../../near", "%2e%2e/%2e%2e/near", "../../../nginx.conf", "%2e%2e/%2e%2e/%2e%2e/nginx.conf")
    for name in ("link", "missing", *climbs):
        answer = await ask(server.edge.listen_port, f"/.well-known/acme-challenge/{name}")
        assert answer.status in (308, 400, 403, 404)
        assert b"worker_processes" not in answer.body


# --- certificates that come and change ---


async def serial(port: int) -> bytes:
    """Return the certificate that is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(shown)


def deployed(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder / CERTIFICATE).read_text())


@contextlib.asynccontextmanager
async def running(edge: EdgeSettings, nginx: NginxSettings) -> AsyncIterator[None]:
    program = require_nginx()
    stop = asyncio.Event()
    tasks = TaskSet(limit=1)
    task = tasks.start(serve(edge, nginx, stop, program=program), "nginx")
    try:
        await eventually(lambda: accepts(nginx.tls_port), lambda yes: yes or task.done())
        assert not task.done()
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
        await tasks.close()


async def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Reloads that follow each other at once; what nginx's service says of them."""
    monkeypatch.setattr(service, "LAME", LAME)
    monkeypatch.setattr(service, "RELOAD_PAUSE", 0.1)
    caplog.set_level("INFO")
    return caplog


async def said(log: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    """Wait until something was said so often."""

    async def ask() -> int:
        return log.text.count(text)

    await eventually(ask, lambda count: count >= times)


async def test_it_starts_without_a_certificate_and_takes_the_ones_that_come(
    folder: Path, upstreams: tuple[ScriptedApi, Scripted], quick: pytest.LogCaptureFixture
) -> None:
    step: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := await asyncio.wait_for(step.get(), 20):
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")

    upstreams[1].script = script
    edge, nginx = settings(folder, upstreams[0])
    nginx = replace(nginx, state_dir=folder / "state", acme_root=folder / "acme", user=owner(), watch_interval=0.05)
    certs = folder / "certs"
    async with running(edge, nginx):
        first = await serial(nginx.tls_port)
        assert first == deployed(folder / "state" / IN_USE)
        context = ssl.create_default_context(cafile=str(folder / "state" / IN_USE / CERTIFICATE))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", nginx.tls_port, ssl=context, server_hostname=DOMAIN
        )
        writer.write(f"GET /v1/x HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        await read_head(reader)
        for n in range(3):
            make_placeholder(certs, DOMAIN, SystemClock())
            (certs / STAMP).write_text(str(n))
            await eventually(lambda: serial(nginx.tls_port), lambda seen: seen == deployed(certs))
            step.put_nowait(b"part %d" % n)
            assert await read_chunk(reader) == b"part %d" % n
        # What cannot be used is not: the key of another certificate, then half a file.
        good = deployed(certs)
        make_placeholder(folder / "other", DOMAIN, SystemClock())
        whole = (certs / PRIVATE_KEY).read_bytes()
        for n, broken in enumerate(((folder / "other" / PRIVATE_KEY).read_bytes(), whole[: len(whole) // 2])):
            (certs / PRIVATE_KEY).write_bytes(broken)
            await said(quick, "cannot be used", n + 1)
            await asyncio.sleep(2 * LAME)  # what was taken in would be seen now
            assert await serial(nginx.tls_port) == good
        (certs / PRIVATE_KEY).write_bytes(whole)
        assert await serial(nginx.tls_port) == good
        step.put_nowait(b"")
        assert await read_chunk(reader) == b""
        writer.close()


@contextlib.asynccontextmanager
async def replicas(port: int, *addresses: str) -> AsyncIterator[None]:
    """Serve at each address; the answer names it."""

    async def start(address: str) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                while True:
                    await read_head(reader)
                    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(address)}\r\n\r\n{address}".encode())
            writer.close()

        return await asyncio.start_server(answer, address, port)

    servers = [await start(address) for address in addresses]
    try:
        yield
    finally:
        for server in servers:
            server.close()


async def test_addresses_change_while_the_certificate_cannot_be_used(
    folder: Path,
    upstreams: tuple[ScriptedApi, Scripted],
    quick: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = ["127.0.0.2"]

    async def look(certificate_dir: Path | None, *_: object) -> Outside:
        return replace(await outside.look(certificate_dir, (), Outside()), addresses={"api.test": tuple(addresses)})

    monkeypatch.setattr(service, "look", look)
    certs, port = certificate(folder / "certs"), free_port()
    good = deployed(certs)
    edge, nginx = settings(folder, upstreams[0])
    edge = replace(edge, api=(Endpoint(host="api.test", port=port),))
    nginx = replace(nginx, state_dir=folder / "state", user=owner(), watch_interval=0.05)
    context = trusting(folder)

    async def ask_api() -> bytes:
        return (await ask(nginx.tls_port, "/api/x", context=context)).body

    async with replicas(port, "127.0.0.2", "127.0.0.3", "127.0.0.4"), running(edge, nginx):
        assert await ask_api() == b"127.0.0.2"
        (certs / PRIVATE_KEY).write_bytes(b"no key")
        addresses[:] = ["127.0.0.3"]  # seen with it or right after it
        await eventually(ask_api, lambda answer: answer == b"127.0.0.3")
        await said(quick, "cannot be used")
        addresses[:] = ["127.0.0.4"]
        await eventually(ask_api, lambda answer: answer == b"127.0.0.4")
        assert await serial(nginx.tls_port) == good
        assert quick.text.count("cannot be used") == 1
        certificate(certs)
        await eventually(lambda: serial(nginx.tls_port), lambda seen: seen == deployed(certs) != good)


def owner() -> str:
    return "root" if Path("/proc/self").stat().st_uid == 0 else ""
