"""The Docker driver against an engine that answers badly, or not at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.short_folder import short_folder

from cloudtolocalllm.manager.drivers.base import DriverError, DriverUnavailableError
from cloudtolocalllm.manager.drivers.docker import engine as engines
from cloudtolocalllm.manager.drivers.docker.driver import DockerDriver
from cloudtolocalllm.manager.drivers.docker.engine import Engine
from cloudtolocalllm.manager.drivers.docker.spec import DockerConfig
from cloudtolocalllm.manager.drivers.folders import TakenError
from cloudtolocalllm.manager.probe import HttpProbe
from cloudtolocalllm.runtime.clock import SystemClock

EVENT = b'{"Action":"die","Actor":{"ID":"c1","Attributes":{"name":"n1"}}}\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@contextlib.asynccontextmanager
async def engine_that_says(folder: Path, content: bytes | None) -> AsyncIterator[Engine]:
    """An engine that answers every call with this content and then waits; with None it never answers."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if content is not None:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + content)
                await writer.drain()
            await over.wait()
        writer.close()

    path = folder / "engine.sock"
    server = await asyncio.start_unix_server(serve, path)
    engine = Engine(f"unix://{path}")
    try:
        yield engine
    finally:
        await engine.close()
        over.set()
        server.close()


async def test_no_call_waits_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CALL_TIMEOUT", 0.1)
    async with engine_that_says(folder, None) as engine, asyncio.timeout(10):
        with pytest.raises(DriverUnavailableError, match="does not answer"):
            await engine.stop("c1", 0.5)
        with pytest.raises(DriverUnavailableError, match="does not answer"):
            await engine.remove("c1")
        assert await engine.last_words("c1") == ""
        with pytest.raises(DriverUnavailableError, match="does not answer"):
            await engine.containers("a=b")


@pytest.mark.parametrize(
    "content",
    [b'{"Action":"di\n', b"[]\n", b'{"Actor":"c1"}\n', b'{"Action":"' + b"x" * 6 * 2**20 + b'"}\n', b"\xff\n"],
    ids=["half", "a list", "no object inside", "too long", "no text"],
)
async def test_what_is_no_event_ends_the_hearing_and_not_the_watcher(folder: Path, content: bytes) -> None:
    async with (
        engine_that_says(folder, EVENT + content) as engine,
        contextlib.aclosing(engine.events(0.0)) as events,
        asyncio.timeout(10),
    ):
        event = await anext(events)
        assert (event.action, event.container, event.name) == ("die", "c1", "n1")
        with pytest.raises(DriverUnavailableError, match="an event that is none"):
            await anext(events)


async def test_folders_that_cannot_be_used_are_told_and_let_go_of(folder: Path) -> None:
    (folder / "proxies").write_text("a file where a folder is to be")

    async def fault() -> DriverError:
        config = DockerConfig(folder, url=f"unix://{folder}/none.sock")
        with pytest.raises(DriverError) as caught:
            await DockerDriver(config, HttpProbe(), SystemClock()).open(lambda _: None)
        return caught.value

    for _ in range(2):  # the first must not keep the lock from the second
        found = await fault()
        assert not isinstance(found, TakenError)
        assert str(found) == "the run folder cannot be used: File exists"


async def test_whose_group_is_missing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.chown", refuse)
    config = DockerConfig(folder, url=f"unix://{folder}/none.sock")
    with pytest.raises(DriverError, match="not permitted; the manager must belong to group 10010, or be root"):
        await DockerDriver(config, HttpProbe(), SystemClock()).open(lambda _: None)
