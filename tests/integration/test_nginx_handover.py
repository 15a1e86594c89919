"""One nginx follows another at ports that a third process holds: nothing is refused, reset or cut."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.edge_doubles import Message, Scripted, ScriptedApi, allowed, read_body, read_head
from tests.support.eventually import eventually
from tests.support.nginx_server import MODULES, require_nginx
from tests.support.nginx_service import DOMAIN, Front, running_front
from tests.support.ports import free_port

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx import service, workers
from cloudtolocalllm.edge.nginx.render import CERTIFICATE, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import make_placeholder
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

pytestmark = [pytest.mark.nginx, pytest.mark.timeout(90)]
PAUSE = 0.1
"""Seconds between two parts of a long answer."""
GRACE = 4.0


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-hand-"))
    for name in ("certs", "next"):
        make_placeholder(path / name, DOMAIN, SystemClock())
    yield path
    shutil.rmtree(path)


async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once, or in as many parts as the target says."""
    await read_body(reader, request)
    if not request.target.startswith("/v1/long/"):
        body = request.target.encode() + request.body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for n in range(int(request.target.rpartition("/")[2])):
        writer.write(b"4\r\n%04d\r\n" % n)
        await writer.drain()
        await asyncio.sleep(PAUSE)
    writer.write(b"0\r\n\r\n")


@pytest.fixture
async def upstreams(folder: Path) -> AsyncIterator[ScriptedApi]:
    proxy = Scripted(folder / "proxy.sock", script)
    api = ScriptedApi(folder / "api.sock", verdict=lambda _: allowed(proxy.path))
    await api.start()
    await proxy.start()
    yield api
    await proxy.stop()
    await api.stop()


@pytest.fixture
def front(folder: Path, upstreams: ScriptedApi) -> Iterator[Front]:
    with running_front(
        folder, {"C2L_EDGE_API": f"unix:{upstreams.path}", "C2L_EDGE_DRAIN_GRACE": str(GRACE)}
    ) as found:
        yield found


@dataclass
class Clients:
    """People who never stop asking, each in a way of their own."""

    front: Front
    folder: Path
    credulous: bool = False
    """Whether they take whatever certificate they are shown."""
    failures: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0
    enough: bool = False

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "certs" / CERTIFICATE))
        if self.credulous:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def connect(self, *, tls: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not tls:
            return await asyncio.open_connection(self.front.host, self.front.port)
        return await asyncio.open_connection(
            self.front.host, self.front.tls_port, ssl=self.trusting(), server_hostname=DOMAIN
        )

    async def fresh(self, *, tls: bool) -> None:
        """A connection for each request."""
        reader, writer = await self.connect(tls=tls)
        writer.write(f"GET /v1/models HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        answer = await read_head(reader)
        assert answer.status == (200 if tls else 308), answer.line
        writer.close()

    async def shown(self) -> bytes:
        """Return the certificate that is shown."""
        _, writer = await self.connect(tls=True)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(found)

    async def kept(self) -> None:
        """One connection for all of them, until an answer says that it closes."""
        reader, writer = await self.connect(tls=True)
        for n in range(1000):
            if self.enough:
                break
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 8\r\n\r\n{n:08}"
            writer.write(head.encode())
            answer = await read_head(reader)
            await read_body(reader, answer)
            assert answer.body == f"/v1/chat/completions{n:08}".encode()
            self.count("kept")
            if answer.one("connection") == "close":
                break
            await asyncio.sleep(0.01)
        writer.close()

    async def stream(self, parts: int = 10) -> None:
        """A long answer."""
        reader, writer = await self.connect(tls=True)
        writer.write(f"GET /v1/long/{parts} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        answer = await read_head(reader)
        await read_body(reader, answer)
        assert answer.body == b"".join(b"%04d" % n for n in range(parts))
        writer.close()

    def count(self, kind: str) -> None:
        self.answers[kind] = self.answers.get(kind, 0) + 1

    async def again_and_again(self, kind: str) -> None:
        ways = {"fresh": lambda: self.fresh(tls=True), "plain": lambda: self.fresh(tls=False), "kept": self.kept,
                "stream": self.stream}  # fmt: skip
        while not self.enough:
            began = time.monotonic()
            try:
                await ways[kind]()
            except (OSError, AssertionError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{kind}: {error!r}")
            else:
                self.count(kind)
            if kind in ("fresh", "plain"):
                self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def asking(front: Front, folder: Path, *, credulous: bool = False) -> AsyncIterator[Clients]:
    clients = Clients(front, folder, credulous)
    async with asyncio.TaskGroup() as group:
        for kind in ("fresh", "fresh", "plain", "kept", "kept", "stream", "stream", "stream"):
            group.create_task(clients.again_and_again(kind))
        try:
            yield clients
        finally:
            clients.enough = True
    print(f"answers {clients.answers}, failures {len(clients.failures)}, longest {clients.longest:.2f} s")


async def test_one_follows_another_and_nobody_notices(front: Front, folder: Path) -> None:
    front.holder()
    old = front.nginx()
    async with asking(front, folder) as clients, asyncio.TaskGroup() as group:
        # longer than the grace: told by SIGQUIT, as a rollout does once another one serves, it has no need to hurry
        longest = [group.create_task(clients.stream(int(1.5 * GRACE / PAUSE))) for _ in range(3)]
        await asyncio.sleep(0.3)
        new = await asyncio.to_thread(front.nginx)
        began = time.monotonic()
        old.tell(signal.SIGQUIT)
        assert await asyncio.to_thread(old.wait) == 0
        assert all(one.done() for one in longest)
        assert time.monotonic() - began > GRACE
        newest = await asyncio.to_thread(front.nginx)
        new.tell(signal.SIGTERM)  # as `docker stop` does
        assert await asyncio.to_thread(new.wait) == 0
        clients.enough = True
    assert clients.failures == []
    assert clients.answers.keys() == {"fresh", "plain", "kept", "stream"}
    assert min(clients.answers.values()) > 5
    assert newest.process.poll() is None


async def test_who_comes_while_there_is_none_waits_for_the_next(front: Front, folder: Path) -> None:
    front.holder()
    async with asking(front, folder) as clients:
        one = await asyncio.to_thread(front.nginx)
        await asyncio.sleep(0.5)
        one.tell(signal.SIGTERM)
        assert await asyncio.to_thread(one.wait) == 0
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(clients.fresh(tls=tls)) for tls in (False, True)]
            await asyncio.sleep(0.3)
            assert not any(one.done() for one in waiting)
            await asyncio.to_thread(front.nginx)
        clients.enough = True
    assert clients.failures == []


async def test_it_hurries_when_it_is_told_so_after_all(front: Front, folder: Path) -> None:
    front.environ = {**front.environ, "C2L_EDGE_DRAIN_GRACE": "0.5"}
    front.holder()
    one = front.nginx()
    clients = Clients(front, folder)
    stream = asyncio.get_running_loop().create_task(clients.stream(600))
    await asyncio.sleep(0.3)
    one.tell(signal.SIGQUIT)
    one.await_said("accepts nothing more")
    began = time.monotonic()
    one.tell(signal.SIGTERM)
    assert await asyncio.to_thread(one.wait) == 0
    assert time.monotonic() - began < GRACE + 3
    with pytest.raises((OSError, EOFError)):
        await stream


@pytest.mark.parametrize("at_once", [True, False])
async def test_without_a_holder_it_hurries_too(folder: Path, upstreams: ScriptedApi, at_once: bool) -> None:
    edge = EdgeSettings(api=(Endpoint(path=str(upstreams.path)),), listen_port=free_port(), drain_grace=0.3)
    nginx = NginxSettings(state_dir=folder / "state", modules_dir=MODULES, connections=1024, watch_interval=0.1,
                          user="root" if os.geteuid() == 0 else "")  # fmt: skip
    stop, pids = asyncio.Event(), list[int]()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(service.serve(edge, nginx, stop, program=require_nginx(), ready=pids.append))

        async def accepted() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", edge.listen_port)) == 0

        await eventually(accepted, bool)
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.listen_port)
        writer.write(b"GET /v1/long/600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await read_head(reader)
        os.kill(os.getpid(), signal.SIGQUIT)
        if not at_once:

            async def accepting() -> set[int]:
                return workers.accepting(pids[0])

            await eventually(accepting, lambda found: not found)
            await asyncio.sleep(0.5)  # longer than the grace
            assert not serving.done()
        stop.set()  # as SIGTERM does
        await asyncio.wait_for(serving, 10)
        with pytest.raises(EOFError):
            await read_body(reader, answer)
        writer.close()


async def test_nginx_is_looked_after_while_the_holder_is_away(front: Front, folder: Path) -> None:
    holder = front.holder()
    one = front.nginx()
    holder.process.kill()
    await asyncio.to_thread(one.await_said, "the holder of the ports has gone")
    deploy(folder)
    await asyncio.to_thread(one.await_said, "reads its configuration anew")
    assert one.said().count("the holder of the ports has gone") == 1
    for master in workers.workers(one.process.pid):  # its only child
        os.kill(master, signal.SIGTERM)
    assert await asyncio.to_thread(one.wait) == 1
    assert "expected nginx to run" in one.said()


def deploy(folder: Path) -> None:
    """Put another certificate in place."""
    for name in (CERTIFICATE, PRIVATE_KEY):
        shutil.copy(folder / "next" / name, folder / "certs" / name)
    (folder / "certs" / service.STAMP).write_text("next")


async def test_a_new_holder_is_followed(front: Front, folder: Path, upstreams: ScriptedApi) -> None:
    """Here at another address, for nginx still has the former one's; in a container it is another network."""
    holder = front.holder()
    one = front.nginx()
    clients = Clients(front, folder)
    await clients.fresh(tls=True)
    holder.process.kill()
    killed = time.monotonic()
    front.host = "127.0.0.2"
    front.holder()
    held = time.monotonic()
    await clients.fresh(tls=True)
    print(f"served {time.monotonic() - killed:.2f} s after the kill, {time.monotonic() - held:.2f} s after the start")
    assert one.process.poll() is None
    assert upstreams.questions[-1].one("x-original-host") == DOMAIN


async def test_nginx_waits_for_the_holder(front: Front, folder: Path) -> None:
    one = front.nginx(served=False)
    one.await_said("expected the holder of the ports at")
    assert str(front.path) in one.said()
    front.holder()
    one.await_said("using inherited sockets")
    await Clients(front, folder).fresh(tls=True)


async def test_it_does_not_wait_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PORTS_WITHIN", 0.3)
    edge = EdgeSettings(api=(Endpoint(path="/nowhere"),))
    nginx = NginxSettings(ports=folder / "none.sock", state_dir=folder / "state")
    with pytest.raises(service.NginxError, match="got: No such file or directory; start the service ports; waited"):
        await service.serve(edge, nginx, asyncio.Event())


async def test_ports_that_are_others_are_not_taken(front: Front) -> None:
    front.holder()
    one = front.nginx(served=False)
    assert one.process.poll() is None
    front.environ = {**front.environ, "C2L_NGINX_TLS_PORT": "1"}
    wrong = front.nginx(served=False)
    assert await asyncio.to_thread(wrong.wait) == 2
    assert "C2L_NGINX_PORTS: expected a socket at port 1 among those handed over" in wrong.said()


async def test_clients_keep_their_addresses(front: Front, folder: Path, upstreams: ScriptedApi) -> None:
    front.holder()
    front.nginx()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", front.tls_port, ssl=Clients(front, folder).trusting(), server_hostname=DOMAIN,
        local_addr=("127.0.0.77", 0),
    )  # fmt: skip
    writer.write(f"GET /api/x HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
    await read_head(reader)
    writer.close()
    assert upstreams.requests[-1].one("x-forwarded-for") == "127.0.0.77"


async def test_a_certificate_comes_and_the_sockets_stay(front: Front, folder: Path) -> None:
    front.holder()
    one = front.nginx()
    async with asking(front, folder, credulous=True) as clients:
        await asyncio.sleep(0.3)
        deploy(folder)
        await asyncio.to_thread(one.await_said, "reads its configuration anew")
        fresh = ssl.PEM_cert_to_DER_cert((folder / "next" / CERTIFICATE).read_text())
        await eventually(clients.shown, lambda shown: shown == fresh)
        await asyncio.sleep(1)
        clients.enough = True
    assert clients.failures == []


async def test_it_starts_before_the_names_behind_it_are_known(front: Front, folder: Path) -> None:
    front.environ = {**front.environ, "C2L_EDGE_API": "c2l-no-such-host.invalid:8000",
                     "C2L_NGINX_WEB": "c2l-no-such-page.invalid:8000"}  # fmt: skip
    front.holder()
    front.nginx()
    clients = Clients(front, folder)
    for target in ("/", "/api/x", "/v1/models"):
        reader, writer = await clients.connect(tls=True)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        answer = await read_head(reader)
        await read_body(reader, answer)
        writer.close()
        assert (answer.status, answer.problem, answer.one("retry-after")) == (503, "overloaded", "1")
