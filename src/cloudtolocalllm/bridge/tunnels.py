"""The bridge's tunnels: one that serves new requests, and older ones that end with their last answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cloudtolocalllm.link import Acceptor, TunnelClient
from cloudtolocalllm.link.client import DialTarget, RefusedError
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.tunnel import GoAwayReason

log = logging.getLogger(__name__)

DIAL_TIME = 2.0
"""Seconds that a new tunnel may take before a further wake-up starts another one."""
RETIRE_INTERVAL = 0.5
"""Seconds between two looks whether an older tunnel has answered its last request."""


@dataclass(eq=False, slots=True)
class _Run:
    instance: str
    client: TunnelClient
    began: float
    task: asyncio.Task[None] | None = field(default=None)

    @property
    def alive(self) -> bool:
        return self.task is not None and not self.task.done()


class Tunnels:
    """Dials when woken. Whoever is dialled, it is the user's present proxy: the edge chooses it."""

    def __init__(self, target: Callable[[], Awaitable[DialTarget]], acceptor: Acceptor) -> None:
        """Make a set of no tunnel.

        Args:
            target: Where and as whom to dial.
            acceptor: Takes the requests.
        """
        self._target = target
        self._acceptor = acceptor
        self._tasks = TaskSet(limit=256)
        self._runs: list[_Run] = []
        self._current: _Run | None = None

    @property
    def attached(self) -> bool:
        """Whether the present tunnel is up."""
        return self._current is not None and self._current.alive and self._current.client.tunnel.attached

    def wake(self, instance: str) -> None:
        """Make sure that a tunnel to this instance is up or being dialled."""
        loop = asyncio.get_running_loop()
        current = self._current
        if current is not None and current.alive:
            if current.client.tunnel.attached:
                if current.instance == instance:
                    return
            elif loop.time() - current.began < DIAL_TIME:
                current.instance = instance  # the dial leads to whichever proxy there is now
                return
            # It waits to dial again, or belongs to a proxy that is being replaced. Its answers still run: it may find
            # its session again, or learn that it is lost, and the answers go on into the journal.
            self._tasks.start(self._retire(current), "retiring a tunnel")
        run = _Run(instance, TunnelClient(self._target, self._acceptor), loop.time())
        run.task = self._tasks.start(self._run(run), "tunnel")
        self._runs.append(run)
        self._current = run

    async def close(self, grace: float) -> None:
        """Let running answers end for up to `grace` seconds, then end every tunnel."""
        alive = [run.client for run in self._runs if run.alive]
        await asyncio.gather(*(client.close(GoAwayReason.SHUTDOWN, grace) for client in alive))
        # GOAWAY and the closing handshake leave in the turn of the loop after the last stream's end.
        await asyncio.sleep(0)
        await self._tasks.close()

    async def _run(self, run: _Run) -> None:
        try:
            await run.client.run()
        except RefusedError as error:
            log.warning("the tunnel was refused", extra={"status": error.status})
        finally:
            self._runs.remove(run)

    async def _retire(self, run: _Run) -> None:
        while run.alive and run.client.tunnel.open_streams:  # noqa: ASYNC110 - a link tells this to nobody
            await asyncio.sleep(RETIRE_INTERVAL)
        if run.alive:
            await run.client.close(GoAwayReason.SHUTDOWN, 0.1)
