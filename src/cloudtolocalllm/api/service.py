"""One API process: listens, serves until told to stop, and drains."""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn

from cloudtolocalllm.api.app import build_app
from cloudtolocalllm.api.composition import Composition, composed
from cloudtolocalllm.api.control import ControlHub
from cloudtolocalllm.api.parts import Parts
from cloudtolocalllm.api.root import Root
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.audit.service import auditing
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.clock import SystemClock

log = logging.getLogger(__name__)

ERASE_INTERVAL = 60.0
"""Seconds between two times that what has expired is erased from the state, so that it is nowhere any more."""
MAX_SWEEPS = 100
"""Times that a store is asked to erase some more at one such time."""
KEEP_ALIVE = 75
"""Seconds that an edge's idle connection is kept: longer than the edge keeps it, so that it never meets our close."""


class ListenError(Exception):
    """The endpoint cannot be listened on; the text says why."""


async def serve(config: ApiSettings, stop: asyncio.Event, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until `stop` is set, then drain for at most `drain_grace` seconds and return.

    Args:
        config: The settings.
        stop: Set it to end.
        ready: Called once the endpoint accepts connections.

    Raises:
        StateError: The state's file is not usable.
        StateUnavailableError: The state does not answer.
        SecretsError: A file of keys is not usable.
        ServiceKeysError: The key pair for calls to other services is not usable.
        OSError: The folder of the audit log is not usable.
        SettingsError: The settings do not fit together.
        ListenError: The endpoint is taken.
    """
    clock = SystemClock()
    async with (
        auditing(config.audit, service="api", clock=clock, settings=config) as auditor,
        composed(config, clock, auditor) as made,
    ):
        root = Root(cast("Any", build_app(made.parts)), made.parts.authorizer, clock)
        server = _Server(_uvicorn_config(root, made.hub, config))
        with _listening(config.listen) as listener:
            await _run(server, listener, made, stop, ready, partial(_drain, root, config))


async def _run(
    server: "_Server",
    listener: socket.socket,
    made: Composition,
    stop: asyncio.Event,
    ready: Callable[[], None] | None,
    drain: "Callable[[_Server, ControlHub, Parts], Awaitable[None]]",
) -> None:
    hub, parts, bus = made.hub, made.parts, made.parts.bus
    async with asyncio.TaskGroup() as group:
        carrying = group.create_task(bus.run(), name="bus")
        serving = group.create_task(server.serve([listener]), name="uvicorn")
        group.create_task(hub.listen(), name="control bus")
        group.create_task(parts.revocations.follow(), name="revocations")
        registering = group.create_task(parts.registry.run(), name="registry")
        sweeping = group.create_task(hub.sweep_forever(), name="control sweep")
        erasing = group.create_task(_erase_expired(parts.state), name="state sweep")
        await server.listening.wait()
        log.info("listening")
        if ready is not None:
            ready()
        await stop.wait()
        log.info("draining")
        await drain(server, hub, parts)
        registering.cancel()
        await asyncio.wait([registering])  # or both would write at once
        await parts.registry.leave()
        bus.close()  # ends the event streams, which would never end by themselves
        server.should_exit = True
        await serving
        sweeping.cancel()
        erasing.cancel()
        carrying.cancel()


async def _drain(root: Root, config: ApiSettings, server: "_Server", hub: ControlHub, parts: Parts) -> None:
    """Send the bridges and the edge to other replicas, cutting nothing that is under way.

    New connections are refused at once, so that the edge goes elsewhere without a pause; the kept ones are used up,
    one answer each, or closed by the edge when they were idle for as long as it keeps them.
    """
    await parts.registry.move()
    root.closing = True
    server.stop_listening()
    began = asyncio.get_running_loop().time()
    await hub.close(config.drain_grace / 2)
    left = began + config.drain_idle - asyncio.get_running_loop().time()
    await server.until_unused(max(0.0, left))  # the bus goes on meanwhile: a request may have a bridge to wake


async def _erase_expired(state: State) -> None:
    while True:
        await asyncio.sleep(ERASE_INTERVAL)
        with contextlib.suppress(StateUnavailableError):
            for _ in range(MAX_SWEEPS):
                if not await state.sweep():
                    break
                await asyncio.sleep(0)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's own (runtime.lifecycle) stop the service."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._sockets: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._sockets = sockets or []
        self.listening.set()

    def stop_listening(self) -> None:
        """Refuse new connections; those that are there go on."""
        for server in self.servers:
            server.close()
        for one in self._sockets:
            one.close()

    async def until_unused(self, seconds: float) -> None:
        """Wait until no connection is left, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.connections:  # noqa: ASYNC110 - uvicorn has nothing that tells
                    await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(root: Root, hub: ControlHub, config: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        cast("Any", root),
        http="httptools",
        ws=cast("type[asyncio.Protocol]", hub.protocol),  # it is only ever called, with keywords
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(config.drain_grace / 2)),
    )


@contextlib.contextmanager
def _listening(endpoint: Endpoint) -> Iterator[socket.socket]:
    if endpoint.path is None:
        with _listen_tcp(endpoint) as listener:
            yield listener
        return
    path = Path(endpoint.path)
    with _listen_unix(path) as listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _listen_tcp(endpoint: Endpoint) -> socket.socket:
    try:
        return socket.create_server((endpoint.host or "127.0.0.1", endpoint.port or 0), backlog=2048)
    except OSError as error:
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from None


def _listen_unix(path: Path) -> socket.socket:
    """Bind a Unix socket with mode 0600; a dead process's socket file is replaced, a living one's is not."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"cannot listen on {path}: there is a file that is no socket")
        if _answers(path):
            raise ListenError(f"cannot listen on {path}: another process does")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment, so by umask and not by a chmod that comes later.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
