"""The proxy as a process: built from its settings, run until it is told to stop."""

import asyncio
import functools
import gc
import logging
import os
import sys

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.link import TunnelServer
from cloudtolocalllm.proxy.app import ProxyApp
from cloudtolocalllm.proxy.selection import Bridges
from cloudtolocalllm.proxy.settings import ProxySettings
from cloudtolocalllm.proxy.stats import Stats
from cloudtolocalllm.runtime import lifecycle, logs
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.http1 import HttpServer
from cloudtolocalllm.tunnel import DEFAULT_LIMITS, GoAwayReason, Limits

log = logging.getLogger(__name__)


class ProxyServer:
    """One user's proxy: `start` listens, `close` drains. Nothing here exists before the event loop runs."""

    def __init__(self, settings: ProxySettings, *, clock: Clock | None = None, limits: Limits | None = None) -> None:
        """Build the parts.

        Args:
            settings: What it was told.
            clock: None for the machine's.
            limits: Of the tunnels; None for the defaults with the resume window of the settings.
        """
        clock = clock or SystemClock()
        self._settings = settings
        self.stats = Stats(clock)
        self.bridges = Bridges(max_waiting=settings.max_waiting)
        self.tunnels = TunnelServer(limits=limits or _limits(settings), on_attached=self.bridges.attached)
        self.bridges.use(self.tunnels)
        self.app = ProxyApp(settings, self.tunnels, self.bridges, self.stats, clock)
        self._http = HttpServer(self.app)

    async def start(self) -> Endpoint:
        """Listen, and return where (for TCP port 0, with the port that was chosen)."""
        listen = self._settings.listen
        if listen.path is not None:
            await self._http.listen_unix(listen.path)
            if self._settings.listen_group:
                os.chmod(listen.path, 0o660)  # noqa: PTH101 - pathlib would cost a forked proxy pages of its own
            return listen
        port = await self._http.listen_tcp(listen.host or "127.0.0.1", listen.port or 0)
        return Endpoint(host=listen.host or "127.0.0.1", port=port)

    async def close(self, grace: float | None = None) -> None:
        """Stop accepting, tell the bridges, finish what is in flight, end.

        Args:
            grace: Seconds for requests in flight; None for what the settings say.
        """
        grace = self._settings.drain if grace is None else grace
        self.app.drain()
        # The tunnels must outlive the requests; those that the grace time cuts are cancelled at the bridges.
        await asyncio.gather(
            self._http.close(grace),
            self.tunnels.close(GoAwayReason.SHUTDOWN, grace + 0.5),
        )


def _limits(settings: ProxySettings) -> Limits:
    if settings.resume_window == DEFAULT_LIMITS.resume_window:
        return DEFAULT_LIMITS
    return Limits(resume_window=settings.resume_window)


async def serve(settings: ProxySettings, stop: asyncio.Event) -> None:
    """Run a proxy until `stop` is set, then drain it."""
    server = ProxyServer(settings)
    endpoint = await server.start()
    # The manager tells of each proxy that is ready; a line here would cost each the memory of a first log record.
    log.debug("proxy listens", extra={"instance": settings.instance, "endpoint": str(endpoint)})
    gc.freeze()  # what exists now lives as long as the process: collections need not walk it
    await _told_or_orphaned(stop, settings.orphan_timeout, server.stats, SystemClock())
    log.info("proxy drains", extra={"in_flight": server.stats.in_flight})
    await server.close()
    log.info("proxy stopped", extra={"instance": settings.instance})


async def _told_or_orphaned(stop: asyncio.Event, timeout: float, stats: Stats, clock: Clock) -> None:
    """Wait until told to stop, or until no manager has asked for `timeout` seconds: a crashed one may adopt us."""
    while timeout:
        left = stats.asked + timeout - clock.monotonic()
        if left <= 0:
            log.warning("no manager asks any more", extra={"seconds": timeout})
            return
        try:
            await asyncio.wait_for(stop.wait(), left)
        except TimeoutError:
            continue
        return
    await stop.wait()


def log_handler() -> logging.Handler:
    """Return where a proxy's logs go."""
    return logs.handler_of("proxy", sys.stdout)


def main(settings: ProxySettings, handler: logging.Handler | None = None) -> None:
    """Run a proxy in this process until it is told to stop; blocks.

    Safe after a fork from a preloaded parent: importing this module makes no loop, thread or descriptor.

    Args:
        settings: What it is told.
        handler: `log_handler()` of a parent; None to make one here, which costs a forked proxy 0.3 MB.
    """
    logs.use(handler or log_handler(), settings.log_level)
    lifecycle.run(functools.partial(serve, settings), leash=settings.leash_fd)
