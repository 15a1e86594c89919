"""Runs nginx: starts it, and has it read its certificate and the API's addresses anew when they change."""

import asyncio
import hashlib
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from cloudtolocalllm.edge.nginx.render import CERTIFICATE, CONFIGURATION, PRIVATE_KEY
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import prepare, usable, write
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

log = logging.getLogger(__name__)

STAMP = "stamp"
"""File beside a certificate that changes last, when a pair is whole."""
PROGRAM = "nginx"
KILL_AFTER = 5.0
"""Seconds that a killed nginx may take to end."""
RESOLVE_TIMEOUT = 3.0
RELOAD_PAUSE = 2.0
"""Seconds between two reloads at least: each leaves a worker that lasts as long as its streams."""


class NginxError(Exception):
    """nginx ended by itself; what it said stands in the log above."""


async def serve(
    edge: EdgeSettings,
    nginx: NginxSettings,
    stop: asyncio.Event,
    *,
    program: str = PROGRAM,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Run nginx until `stop` is set, then let the answers under way finish for as long as the edge's drain_grace.

    Args:
        edge: What was configured.
        nginx: What was configured.
        stop: Set to end it.
        program: The nginx to run.
        ready: Called with nginx's process id once it was started.

    Raises:
        RenderError: Some settings cannot be expressed.
        NginxError: It ended by itself.
    """
    prepare(edge, nginx, SystemClock())
    folder = nginx.state_dir / "conf"
    write(folder, edge, nginx)
    seen = await _outside(edge, nginx)
    pause = nginx.watch_interval
    process = await asyncio.create_subprocess_exec(
        program, *("-e", "stderr", "-p", str(nginx.state_dir), "-c", str(folder / CONFIGURATION)), "-g", "daemon off;"
    )
    if ready is not None:
        ready(process.pid)
    try:
        while not stop.is_set():
            await _first(stop, process, pause)
            if process.returncode is not None:
                raise NginxError(f"expected nginx to run, it ended with status {process.returncode}")
            pause = nginx.watch_interval
            # What is gone for a moment changes nothing: nginx goes on with what it has read.
            now = {**seen, **{what: value for what, value in (await _outside(edge, nginx)).items() if value}}
            if now != seen and not stop.is_set():
                seen = now
                _renew(folder, edge, nginx)
                process.send_signal(signal.SIGHUP)
                pause = max(pause, RELOAD_PAUSE)
    finally:
        await _end(process, edge.drain_grace)


def _renew(folder: Path, edge: EdgeSettings, nginx: NginxSettings) -> None:
    """Name the certificate that came, if it can be used; nginx keeps what it has if it cannot use what it reads."""
    if nginx.certificate_dir is None or usable(nginx.certificate_dir):
        write(folder, edge, nginx)
        log.info("nginx reads its configuration anew: the certificate or the API's addresses changed")
    else:
        log.warning("the certificate cannot be used: expected a chain and its own key; the one in use stays")


async def _first(stop: asyncio.Event, process: asyncio.subprocess.Process, seconds: float) -> None:
    """Wait until it is time to stop, nginx has ended, or the time is over."""
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            waits = [group.create_task(stop.wait()), group.create_task(process.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
    except TimeoutError:
        pass


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    for number, seconds in ((signal.SIGQUIT, grace), (signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, KILL_AFTER)):
        if process.returncode is not None:
            return
        process.send_signal(number)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            continue


async def _outside(edge: EdgeSettings, nginx: NginxSettings) -> dict[str, str]:
    """Return what nginx reads only when it is told to: the certificate, and the addresses behind names."""
    found = {}
    if nginx.certificate_dir is not None:
        found = {name: _digest(nginx.certificate_dir / name) for name in (STAMP, CERTIFICATE, PRIVATE_KEY)}
    names = {endpoint.host for endpoint in (*edge.api, nginx.web) if endpoint is not None and endpoint.host}
    for name in sorted(names):
        found[f"address of {name}"] = await _addresses(name)
    return found


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


async def _addresses(name: str) -> str:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return ""
    return ",".join(sorted({str(address[4][0]) for address in found}))
