"""The composition root: makes the parts of one API process and serves until told to stop."""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn

from cloudtolocalllm.api.app import build_app
from cloudtolocalllm.api.authorize import Authorizer
from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.control import ControlHub
from cloudtolocalllm.api.identity import Identifier
from cloudtolocalllm.api.manager_client import ManagerClient
from cloudtolocalllm.api.parts import Parts
from cloudtolocalllm.api.presence import Presences
from cloudtolocalllm.api.recorder import Recorder
from cloudtolocalllm.api.root import Root
from cloudtolocalllm.api.secrets import load_sealing_keys, read_token
from cloudtolocalllm.api.settings import ApiSettings
from cloudtolocalllm.api.status import StatusReader
from cloudtolocalllm.api.store import Store
from cloudtolocalllm.api.waker import Waker
from cloudtolocalllm.auth.sessions import Sealer
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.runtime.clock import SystemClock

log = logging.getLogger(__name__)

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
        StoreError: The database is not usable.
        SecretsError: A file of keys is not usable.
        ListenError: The endpoint is taken.
    """
    clock = SystemClock()
    bus = LocalBus()
    with contextlib.closing(Store(config.database, clock=clock)) as store:
        sealer = Sealer(load_sealing_keys(config.secrets_dir))
        recorder = Recorder(store, clock)
        identifier = Identifier(store, sealer, recorder, clock, secure=config.secure)
        presences = Presences(bus)
        waker = Waker(bus, clock)
        token = read_token(config.manager_token_file)
        manager = ManagerClient(config.manager, token, timeout=config.manager_timeout, clock=clock)
        scheme = "https" if config.secure else "http"
        authorizer = Authorizer(identifier, store, presences, manager, waker, clock, scheme=scheme)
        status = StatusReader(store, presences, manager, clock)
        hub = ControlHub(identifier, store, presences, recorder, waker, bus, clock)
        app = build_app(Parts(store, sealer, identifier, authorizer, bus, manager, status, clock, config.secure))
        server = _Server(_uvicorn_config(Root(cast("Any", app), authorizer, clock), hub, config))
        try:
            with _listening(config.listen) as listener:
                await _run(server, listener, hub, bus, stop, ready, config.drain_grace)
        finally:
            await manager.close()
            recorder.flush()


async def _run(
    server: "_Server",
    listener: socket.socket,
    hub: ControlHub,
    bus: LocalBus,
    stop: asyncio.Event,
    ready: Callable[[], None] | None,
    grace: float,
) -> None:
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve([listener]), name="uvicorn")
        group.create_task(hub.listen(), name="control bus")
        sweeping = group.create_task(hub.sweep_forever(), name="control sweep")
        await server.listening.wait()
        log.info("listening")
        if ready is not None:
            ready()
        await stop.wait()
        log.info("draining")
        bus.close()  # ends the event streams, which would never end by themselves
        await hub.close(grace / 2)
        server.should_exit = True
        await serving
        sweeping.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's own (runtime.lifecycle) stop the service."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

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
