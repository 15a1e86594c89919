"""Replicas of the API come and go behind a name: nginx follows, and its old workers do not pile up."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.edge_doubles import Message, read_body, read_head
from tests.support.eventually import eventually
from tests.support.nginx_server import MODULES, require_nginx
from tests.support.ports import free_port

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.edge.nginx import service
from cloudtolocalllm.edge.nginx.outside import Outside
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.workers import accepting, workers
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.tasks import TaskSet

pytestmark = [pytest.mark.nginx, pytest.mark.timeout(60)]
NAME = "api.test"


class Dns(asyncio.DatagramProtocol):
    """Answers every question of type A with the addresses that there are, for a second."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        found = self.addresses if question[-4:-2] == b"\0\x01" else []
        head = data[:2] + b"\x81\x80\0\x01" + len(found).to_bytes(2) + bytes(4)
        answers = b"".join(b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + bytes(map(int, one.split("."))) for one in found)
        self._transport.sendto(head + question + answers, addr)


@dataclass
class Place:
    """Replicas at addresses of this machine, the DNS that names them, and an nginx in front."""

    dns: Dns
    port: int
    edge_port: int
    pids: list[int] = field(default_factory=list)
    """nginx's process ids, as it was started."""

    async def ask(self) -> str:
        """Return which replica answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.edge_port)
        writer.write(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await read_head(reader)
        await read_body(reader, answer)
        writer.close()
        return answer.body.decode() if answer.status == 200 else f"{answer.status} {answer.problem}"

    async def alone(self) -> bool:
        """Tell whether only one worker takes connections; for a moment a former one may, too."""
        return len(accepting(self.pids[0])) == 1

    async def hold(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin an answer that does not end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.edge_port)
        writer.write(b"GET /api/long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_head(reader)).status == 200
        return reader, writer


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-reps-"))
    yield path
    shutil.rmtree(path)


async def replica(stack: contextlib.AsyncExitStack, address: str, port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            while True:
                request: Message = await read_head(reader)
                if request.target == "/api/long":
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    await reader.read()
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(address), address.encode()))
        writer.close()

    server = await asyncio.start_server(answer, address, port)
    stack.push_async_callback(server.wait_closed)
    stack.callback(server.close)


@pytest.fixture
async def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    program = require_nginx()
    dns_port, found = free_port(), Place(Dns(), free_port(), free_port())

    async def look(*_: object) -> Outside:  # as this machine's resolver would, if it asked our DNS
        return Outside({}, {NAME: tuple(sorted(found.dns.addresses))})

    monkeypatch.setattr(service, "look", look)
    edge = EdgeSettings(
        api=(Endpoint(host=NAME, port=found.port),), listen_port=found.edge_port, drain_grace=0.2, limit_connections=0
    )
    nginx = NginxSettings(
        state_dir=folder / "state", modules_dir=MODULES, resolver=f"127.0.0.1:{dns_port}", connections=1024,
        watch_interval=0.1, user="root" if os.geteuid() == 0 else "",
    )  # fmt: skip
    stop, tasks = asyncio.Event(), TaskSet(limit=1)
    async with contextlib.AsyncExitStack() as stack:
        for n in (2, 3, 4, 5):
            await replica(stack, f"127.0.0.{n}", found.port)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: found.dns, local_addr=("127.0.0.1", dns_port)
        )
        stack.callback(transport.close)
        task = tasks.start(service.serve(edge, nginx, stop, program=program, ready=found.pids.append), "nginx")
        await eventually(lambda: _refused(found), lambda refused: not refused)
        yield found
        stop.set()
        await asyncio.wait_for(task, 15)
        await tasks.close()


async def _refused(place: Place) -> bool:
    try:
        await place.ask()
    except OSError:
        return True
    return False


async def test_it_follows_as_they_come_and_go(place: Place) -> None:
    assert await place.ask() == "503 overloaded"
    began = time.monotonic()
    for addresses in (["127.0.0.2"], ["127.0.0.3"], ["127.0.0.4", "127.0.0.5"]):
        place.dns.addresses = addresses
        changed = time.monotonic()
        answer = await eventually(place.ask, addresses.__contains__)
        print(f"{answer} answers {time.monotonic() - changed:.2f} s after the change")
    await eventually(place.alone, bool)
    assert {await place.ask() for _ in range(20)} == {"127.0.0.4", "127.0.0.5"}
    place.dns.addresses = []  # gone for a moment: what was known stays
    await asyncio.sleep(0.5)
    assert await place.ask() in ("127.0.0.4", "127.0.0.5")
    assert time.monotonic() - began < 20


async def test_old_workers_do_not_pile_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(service, "MAX_LEAVING", 2)
    monkeypatch.setattr(service, "LAME", 0.1)
    monkeypatch.setattr(service, "RELOAD_PAUSE", 0.2)

    async def change(last: int) -> None:
        place.dns.addresses = [f"127.0.0.{last}"]
        await eventually(place.ask, lambda answer: answer == f"127.0.0.{last}")
        await eventually(place.alone, bool)

    held = []
    most = 0
    for last in (2, 3, 4, 5, 2, 3, 4):
        await change(last)
        held.append(await place.hold())
        most = max(most, len(workers(place.pids[0])))
    assert most == 4  # the one that serves, two that somebody holds, and one more by the last reload
    assert caplog.text.count("looked up at each request") == 1
    for _, writer in held:
        writer.close()

    async def left() -> int:
        return len(workers(place.pids[0]))

    await eventually(left, lambda found: found == 1)
    await change(5)
    await eventually(left, lambda found: found == 1)
    assert caplog.text.count("reads its configuration anew") <= 6  # 4 until it was enough, and 2 since
