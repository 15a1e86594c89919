"""The composition root of streaming-proxy-manager."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cloudtolocalllm.audit.auditor import Auditor
from cloudtolocalllm.audit.service import auditing
from cloudtolocalllm.auth.services import ServiceVerifier
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.audit import Lifecycle
from cloudtolocalllm.manager.drivers.base import Driver
from cloudtolocalllm.manager.drivers.docker.spec import Isolation
from cloudtolocalllm.manager.drivers.process import ProcessDriver
from cloudtolocalllm.manager.http import make_app
from cloudtolocalllm.manager.probe import HttpProbe, Probe
from cloudtolocalllm.manager.reconciler import Reconciler
from cloudtolocalllm.manager.settings import ManagerSettings
from cloudtolocalllm.manager.standby import leading
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.lifecycle import run

log = logging.getLogger(__name__)

AUDIENCE = "manager"
"""Who a caller's token must be for."""
CALLERS = ("api",)
"""Services that may call."""
HTTP_GRACE = 3
"""Seconds that calls under way have to end; without a reconciler they fail at once anyway."""


def _protocol(pool: IPv4Network | None) -> type[asyncio.Protocol]:
    """Return the server's protocol; one that hears nobody at its addresses in the proxies' own networks.

    A manager that is let into these listens there too: what took a proxy over is to find nothing.
    """

    class Guarded(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
            local = transport.get_extra_info("sockname")
            if pool is not None and isinstance(local, tuple) and IPv4Address(local[0]) in pool:
                transport.set_protocol(asyncio.Protocol())
                transport.abort()
                return
            super().connection_made(transport)

    return Guarded


class _Server(uvicorn.Server):
    """Uvicorn inside our own loop and life: signals are runtime.lifecycle's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers as they are."""
        yield


def build(settings: ManagerSettings, auditor: Auditor) -> Reconciler:
    """Return the reconciler that the settings describe.

    Raises:
        ValueError: The run folder cannot hold sockets.
    """
    probe = HttpProbe()
    clock = SystemClock()
    return Reconciler(
        _driver(settings, probe, clock),
        probe,
        clock,
        settings.policy(),
        stop_grace=settings.stop_grace,
        poll_interval=settings.poll_interval,
        stop_on_exit=settings.stop_proxies_on_exit,
        lifecycle=Lifecycle(auditor),
    )


def _driver(settings: ManagerSettings, probe: Probe, clock: Clock) -> Driver:
    if settings.driver == "docker":
        # Imported only here: the engine's client would cost a manager without containers some 15 MB.
        from cloudtolocalllm.manager.drivers.docker.driver import DockerDriver

        return DockerDriver(settings.containers(), probe, clock)
    return ProcessDriver(settings.process(), probe)


async def serve(settings: ManagerSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    After: if so told, no proxy, socket or folder of one is left; in any case no process of the manager's own.

    Raises:
        ValueError: A setting does not fit; the text says which and what was expected.
        OSError: Nothing can listen at the endpoint, or the audit log's folder cannot be used.
        LogBusyError: Another process writes this audit log.
        DriverError: Another manager has the run folder, or the fork server does not start.
    """
    clock = SystemClock()
    verifier = ServiceVerifier(AUDIENCE, settings.service_keys, CALLERS, clock)
    async with contextlib.AsyncExitStack() as stack:
        if settings.standby and not await stack.enter_async_context(_leading(settings, stop)):
            return
        audit = auditing(settings.audit(), service="manager", clock=clock, settings=settings)
        auditor = await stack.enter_async_context(audit)
        reconciler = build(settings, auditor)
        # Listening comes after the adoption: who could call before would not find what is there.
        await reconciler.open()
        stack.push_async_callback(reconciler.close)
        await _serve(settings, reconciler, make_app(reconciler, verifier, clock, auditor), stop)


def _leading(settings: ManagerSettings, stop: asyncio.Event) -> contextlib.AbstractAsyncContextManager[bool]:
    # The one folder of the driver's that no proxy and not nginx may enter.
    folder = settings.containers().records if settings.driver == "docker" else settings.process().folder
    return leading(folder, settings.listen, stop)


async def _serve(settings: ManagerSettings, reconciler: Reconciler, app: FastAPI, stop: asyncio.Event) -> None:
    listener = _listen(settings.listen)
    config = uvicorn.Config(
        app,
        http=_protocol(settings.subnets if settings.isolation is Isolation.NETWORK else None),
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=HTTP_GRACE,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config)
    try:
        async with asyncio.TaskGroup() as group:
            http = group.create_task(server.serve(sockets=[listener]))
            try:
                await reconciler.run(stop)
            finally:
                # Last, so that callers get an answer while the proxies drain. Also when the reconciler fails: a
                # server that is only cancelled leaves its listener open, and uvloop never closes then.
                server.should_exit = True
                await http
    finally:
        listener.close()
        if settings.listen.path is not None:
            _remove(Path(settings.listen.path))


def main(settings: ManagerSettings) -> None:
    """Run the service until it is told to stop by a signal or the end of its leash."""
    run(functools.partial(serve, settings), leash=settings.leash_fd)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(endpoint: Endpoint) -> socket.socket:
    """Return a bound socket; a Unix one with mode 0600, in place of a stale one."""
    if endpoint.path is None:
        return socket.create_server((endpoint.host or "127.0.0.1", endpoint.port or 0))
    path = Path(endpoint.path)
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # between bind and chmod anyone could connect
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener
