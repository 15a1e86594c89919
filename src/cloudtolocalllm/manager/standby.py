"""Two managers of one run folder: one leads, the other stands by and takes over when the first ends.

The leader holds a lock that the kernel takes back when its process ends, however it ends. Whoever stands by does not
listen where the API calls: a connection is refused there, and the API's goes on to the leader's address by itself. It
listens on loopback alone, for its container's health check.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers import folders

log = logging.getLogger(__name__)

LEADER = ".leader"
POLL = 0.1
"""Seconds between two tries to lead: what a takeover may cost beside the adoption."""
ASK_TIMEOUT = 2.0
"""Seconds in which a health check must have asked."""
MAX_HEAD = 4096
"""Bytes of a health check's request."""
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\nconnection: close\r\n\r\nstanding by\n"
)


@contextlib.asynccontextmanager
async def leading(folder: Path, listen: Endpoint, stop: asyncio.Event) -> AsyncIterator[bool]:
    """Stand by until no other manager leads, and lead until the block ends.

    Args:
        folder: What both share.
        listen: Where the manager will listen; on loopback it answers health checks until then.
        stop: Set when the waiting is to end.

    Yields:
        Whether this manager leads; False when it was stopped before.
    """
    lock = _try(folder)
    if lock is None:
        log.info("another manager leads; standing by")
        async with _door(listen):
            while lock is None and not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await stop.wait()
                lock = None if stop.is_set() else _try(folder)
        if lock is not None:
            log.info("the other manager ended; this one leads")
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _try(folder: Path) -> int | None:
    try:
        return folders.take(folder, name=LEADER)
    except folders.TakenError:
        return None


@contextlib.asynccontextmanager
async def _door(listen: Endpoint) -> AsyncIterator[None]:
    """Answer health checks, at the port of the endpoint on loopback."""
    if listen.port is None:
        yield
        return
    try:
        server = await asyncio.start_server(_answer, "127.0.0.1", listen.port, limit=MAX_HEAD)
    except OSError:
        # Both managers share one network, so that the leader answers there; nothing is lost but this answer.
        log.info("the leader answers the health checks")
        yield
        return
    try:
        yield
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(ASK_TIMEOUT):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
    writer.close()
