"""The edge's process."""

import asyncio
import logging
from collections.abc import Callable

from cloudtolocalllm.audit.service import auditing
from cloudtolocalllm.edge.app import Edge
from cloudtolocalllm.edge.audit import AuditWatch
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.edge.watch import Watch
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.site import Site

log = logging.getLogger(__name__)


async def serve(
    settings: EdgeSettings,
    stop: asyncio.Event,
    *,
    ready: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> None:
    """Serve until `stop` is set, then let the answers under way finish.

    Args:
        settings: What was configured.
        stop: Set to end it.
        ready: Called with the port once it listens.
        watch: Told of refusals; None for the audit log.
    """
    site = Site(settings.web_root) if settings.web_root is not None else None
    if site is None:
        log.warning("there is no web build, so there is no page; make install builds it")
    async with auditing(settings.audit, service="edge", clock=SystemClock(), settings=settings) as auditor:
        await _serve(settings, Edge(settings, site, watch=watch or AuditWatch(auditor)), stop, ready)


async def _serve(
    settings: EdgeSettings, edge: Edge, stop: asyncio.Event, ready: Callable[[int], None] | None
) -> None:
    server = edge.server()
    try:
        port = await server.listen_tcp(settings.listen_host, settings.listen_port)
        log.info("listening", extra={"host": settings.listen_host, "port": port})
        if ready is not None:
            ready(port)
        await stop.wait()
    finally:
        await server.close(settings.drain_grace)
        await edge.close()
