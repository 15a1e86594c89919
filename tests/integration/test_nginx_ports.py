"""The holder of the ports, as its clients see it: what it hands out, to how many, and what it tells them."""

import asyncio
import contextlib
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.support.descriptors import descriptors
from tests.support.eventually import eventually
from tests.support.ports import free_port

from cloudtolocalllm.edge.nginx.ports import Ports, PortsError
from cloudtolocalllm.edge.ports.holder import GREETING, MAX_CLIENTS, SERVING, Holder, HolderError, listen


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="c2l-ports-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "ports.sock"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def holder(path: Path, port: int) -> Iterator[Holder]:
    found = Holder(path, [listen(f"127.0.0.1:{port}")])
    yield found
    found.close()


def client(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(5)
    found.connect(str(path))
    return found


def steps(holder: Holder) -> None:
    """Let it do all that is due."""
    for _ in range(10):
        holder.step(0)


def test_it_hands_out_what_listens(holder: Holder, path: Path, port: int) -> None:
    one = client(path)
    steps(holder)
    greeting, numbers, _, _ = socket.recv_fds(one, 100, 4)
    assert greeting == GREETING
    taken = [socket.socket(fileno=number) for number in numbers]
    assert [found.getsockname() for found in taken] == [("127.0.0.1", port)]
    visitor = socket.create_connection(("127.0.0.1", port), 5)
    taken[0].setblocking(True)
    taken[0].settimeout(5)
    accepted, address = taken[0].accept()
    assert address == visitor.getsockname()
    for found in (one, visitor, accepted, *taken):
        found.close()


def test_they_are_told_when_another_serves(holder: Holder, path: Path) -> None:
    old, new = client(path), client(path)
    steps(holder)
    assert old.recv(100) == new.recv(100) == GREETING
    old.sendall(SERVING)
    steps(holder)
    assert new.recv(100) == b"others 1\n"
    new.sendall(SERVING)
    steps(holder)
    assert old.recv(100) == b"others 1\n"
    new.close()
    steps(holder)
    assert old.recv(100) == b"others 0\n"
    old.close()


def test_what_no_client_says_ends_the_connection(holder: Holder, path: Path) -> None:
    one = client(path)
    steps(holder)
    one.recv(100)
    one.sendall(b"GET / HTTP/1.1\r\n\r\n")
    steps(holder)
    assert one.recv(100) == b""
    one.close()


def test_there_are_only_so_many_clients(holder: Holder, path: Path) -> None:
    several = []
    for _ in range(MAX_CLIENTS + 2):
        several.append(client(path))
        holder.step(1)
    assert [one.recv(100) for one in several] == [GREETING] * MAX_CLIENTS + [b""] * 2
    several[0].close()
    steps(holder)
    several.append(client(path))
    steps(holder)
    assert several[-1].recv(100) == GREETING
    for one in several:
        one.close()


def test_the_socket_is_for_its_owner_and_group(holder: Holder, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_what_a_former_holder_left_is_replaced(path: Path, port: int) -> None:
    path.with_name(path.name + ".new").touch()
    former = Holder(path, [])
    former.close()
    assert path.exists()
    again = Holder(path, [listen(f"127.0.0.1:{port}")])
    one = client(path)
    steps(again)
    assert one.recv(100) == GREETING
    one.close()
    again.close()


@pytest.mark.parametrize(
    "address", ["", "8080", ":8080", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:\uff18"]
)
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(HolderError, match="expected an address as"):
        listen(address)


def test_what_cannot_be_had_is_named(holder: Holder, folder: Path, port: int) -> None:
    with pytest.raises(HolderError, match=f"expected to listen at 127.0.0.1:{port}, got: Address already in use"):
        listen(f"127.0.0.1:{port}")
    with pytest.raises(HolderError, match=r"expected to make the socket .*, got: No such file"):
        Holder(folder / "none" / "ports.sock", [])


def test_both_families_at_one_port(port: int) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    for one in (listen(f"[::]:{port}"), listen(f"0.0.0.0:{port}")):
        assert not one.getblocking()
        one.close()


def test_it_stands_alone(folder: Path, port: int) -> None:
    """As in its image: one file, and nothing but the standard library."""
    source = Path(sys.modules[Holder.__module__].__file__ or "")
    shutil.copy(source, folder / "holder.py")
    command = [sys.executable, "-I", "-S", str(folder / "holder.py"), str(folder / "p.sock"), f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b'"message": "holds 127.0.0.1' in process.stdout.readline()
        one = client(folder / "p.sock")
        assert one.recv(100) == GREETING
        one.close()
    finally:
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (0, b"")


# --- nginx's side of it ---


@contextlib.contextmanager
def speaking(path: Path, greeting: bytes, *handed: socket.socket | IO[bytes]) -> Iterator[None]:
    """Answer as somebody who is no holder."""
    door = socket.create_server(str(path), family=socket.AF_UNIX)
    loop = asyncio.get_running_loop()
    connections = []

    def admit() -> None:
        connection, _ = door.accept()
        connections.append(connection)
        if greeting:
            socket.send_fds(connection, [greeting], [one.fileno() for one in handed])
        else:
            connection.close()

    loop.add_reader(door, admit)
    yield
    loop.remove_reader(door)
    for one in (door, *connections):
        one.close()
    path.unlink()


async def test_who_is_no_holder_is_not_believed(path: Path, port: int) -> None:
    listener, pair, file = listen(f"127.0.0.1:{port}"), socket.socketpair(), path.with_name("file").open("wb")
    before = descriptors()
    answers: tuple[tuple[bytes, tuple[socket.socket | IO[bytes], ...]], ...] = (
        *((b"", ()), (b"c2l-ports 2\n", (listener,)), (GREETING, ()), (GREETING, (pair[0],))),
        *((GREETING, (listener, file, listener)), (GREETING, (listener,) * 17)),
    )
    for greeting, handed in answers:
        with speaking(path, greeting, *handed), pytest.raises(PortsError, match="start the service ports"):
            await Ports.connect(path)
    assert descriptors() == before
    for one in (listener, *pair, file):
        one.close()


async def test_an_attempt_that_is_given_up_leaves_nothing_open(path: Path) -> None:
    with socket.create_server(str(path), family=socket.AF_UNIX) as door:
        before = descriptors()
        asking = asyncio.get_running_loop().create_task(Ports.connect(path))
        connection, _ = await asyncio.get_running_loop().run_in_executor(None, door.accept)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        connection.close()
        assert descriptors() == before


async def test_nginx_hears_of_others_and_of_the_end(holder: Holder, path: Path, port: int) -> None:
    async def stepped() -> None:
        holder.step(0)

    async def connect() -> Ports:
        asking = asyncio.get_running_loop().create_task(Ports.connect(path))
        while not asking.done():
            holder.step(0)
            await asyncio.sleep(0.001)
        return await asking

    old, new = await connect(), await connect()
    assert [str(one) for one in old.endpoints] == [f"127.0.0.1:{port}"]
    assert old.identity == new.identity
    new.serving()
    await eventually(stepped, lambda _: old.superseded.is_set())
    assert not new.superseded.is_set()
    new.close()
    await eventually(stepped, lambda _: not old.superseded.is_set())
    holder.close()
    await asyncio.wait_for(old.lost.wait(), 5)
    old.close()
