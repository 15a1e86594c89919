"""Runs nginx: starts it, has it read anew what changes around it, and ends it without cutting what is under way."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cloudtolocalllm.edge.nginx.checked import Found
from cloudtolocalllm.edge.nginx.master import Master
from cloudtolocalllm.edge.nginx.outside import STAMP, Outside, look
from cloudtolocalllm.edge.nginx.ports import ASK_EVERY, Ports, PortsError
from cloudtolocalllm.edge.nginx.settings import NginxSettings
from cloudtolocalllm.edge.nginx.state import clear, prepare, take_certificate, usable, write
from cloudtolocalllm.edge.nginx.waits import first_of
from cloudtolocalllm.edge.settings import EdgeSettings
from cloudtolocalllm.runtime.clock import SystemClock

__all__ = ["STAMP", "NginxError", "serve"]

log = logging.getLogger(__name__)

PROGRAM = "nginx"
PORTS_WITHIN = 60.0
"""Seconds that the holder of the ports may take to be there when nginx starts."""
LAME = 1.0
"""Seconds before a reload in which each answer says that its connection closes."""
LAME_AT_END = 3.0
"""The same before nginx ends."""
QUEUED = 5.0
"""Seconds before the end of the grace from which nothing more is accepted; until another nginx serves, who connects
then waits in the queue of the sockets."""
RELOAD_PAUSE = 2.0
"""Seconds between two reloads at least: each leaves a worker that lasts as long as its streams."""
MAX_LEAVING = 6
"""Workers that only finish their streams, from which on the API's name is looked up at each request, where it is one
name and there is a resolver: then no change of an address leads to a reload until there are fewer, one of the page's
address included. Where it cannot be so, and for a certificate, each change leads to one, however many there are."""
UNUSABLE = "the certificate cannot be used: expected a chain and its own key; the one in use stays"


class NginxError(Exception):
    """nginx ended by itself, or could not be started; what it said stands in the log above."""


async def serve(
    edge: EdgeSettings,
    nginx: NginxSettings,
    stop: asyncio.Event,
    *,
    program: str = PROGRAM,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Run nginx until `stop` is set, then let the answers under way finish for as long as the edge's drain_grace.

    Told by SIGQUIT, because another nginx is there already, it lets them finish for as long as a stream may be
    silent, and goes as soon as there are none; told by SIGTERM after that it has the edge's drain_grace left.

    Args:
        edge: What was configured.
        nginx: What was configured.
        stop: Set to end it.
        program: The nginx to run.
        ready: Called with nginx's process id each time it was started.

    Raises:
        RenderError: Some settings cannot be expressed.
        NginxError: It ended by itself, or the ports were not handed over in time.
    """
    with _patience() as patient:
        service = _Service(edge, nginx, program, ready or (lambda _: None), stop, patient)
        try:
            await service.run()
            if patient.is_set():
                await service.drain(nginx.stream_timeout, stop, followed=True)
            else:
                await service.drain(edge.drain_grace, asyncio.Event(), followed=False)
        finally:
            await service.close()


@contextlib.contextmanager
def _patience() -> Iterator[asyncio.Event]:
    """Give an event that SIGQUIT sets."""
    patient = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGQUIT, patient.set)
    try:
        yield patient
    finally:
        loop.remove_signal_handler(signal.SIGQUIT)


@dataclass(slots=True)
class _Service:
    edge: EdgeSettings
    nginx: NginxSettings
    program: str
    ready: Callable[[int], None]
    stop: asyncio.Event
    patient: asyncio.Event
    """Ends it as `stop` does; then `stop` is a word to hurry."""
    ports: Ports | None = None
    alone: bool = False
    """Whether the holder of the ports has gone and none has followed it yet."""
    master: Master | None = None
    outside: Outside = field(default_factory=Outside)
    found: Found = field(default_factory=Found)

    async def run(self) -> None:
        """Start nginx and look after it until it is to stop."""
        if self.nginx.ports is not None:
            self.ports = await self._get_ports(self.nginx.ports)
            if self.ports is None:
                return
        self.outside = await self._look()
        prepare(self.edge, self.nginx, SystemClock())
        folder = self.nginx.certificate_dir
        if folder is not None and any(self.outside.certificate.values()) and not usable(folder):
            log.warning(UNUSABLE)
        self.found = Found(self.outside.addresses, self.ports.endpoints if self.ports else None)
        await self._start()
        while not self._told():
            await self._watch()

    def _told(self) -> bool:
        return self.stop.is_set() or self.patient.is_set()

    async def _idle(self, *waits: Coroutine[Any, Any, object], within: float) -> None:
        """Wait until it is to stop, or for anything else, or for so many seconds."""
        await first_of(self.stop.wait(), self.patient.wait(), *waits, within=within)

    async def _watch(self) -> None:
        master = self._running()
        if self.alone:
            await self._idle(master.ended(), within=min(ASK_EVERY, self.nginx.watch_interval))
        else:
            lost = [self.ports.lost.wait()] if self.ports else []
            await self._idle(master.ended(), *lost, within=self.nginx.watch_interval)
        if self._told():
            return
        if master.status is not None:
            raise NginxError(f"expected nginx to run, it ended with status {master.status}")
        if self.ports is not None and self.nginx.ports is not None and self.ports.lost.is_set():
            await self._follow(self.nginx.ports, self.ports)
        now = (await self._look()).after(self.outside)
        if now != self.outside and not self._told():
            await self._take_in(now)

    # --- the ports ---

    async def _get_ports(self, path: Path) -> Ports | None:
        """Ask for the sockets until they come; None when it is time to stop."""
        reason = ""
        try:
            async with asyncio.timeout(PORTS_WITHIN):
                while not self._told():
                    try:
                        return await Ports.connect(path)
                    except PortsError as error:
                        if not reason:
                            log.warning("nginx waits: %s", error)
                        reason = str(error)
                    await self._idle(within=ASK_EVERY)
        except TimeoutError:
            raise NginxError(f"{reason}; waited {PORTS_WITHIN:g} s for it") from None
        return None

    async def _follow(self, path: Path, former: Ports) -> None:
        """Ask once for the sockets of a holder that follows one that has gone; all else stays."""
        if not self.alone:
            log.warning("the holder of the ports has gone; nginx asks again")
        try:
            self.ports = await Ports.connect(path)
        except PortsError:
            self.alone = True
            return
        self.alone = False
        same = self.ports.identity == former.identity
        former.close()
        if same:
            self.ports.serving()
            return
        # The network of the old sockets is gone, and with it everybody who was connected.
        await self._running().kill()
        self.found = replace(self.found, listening=self.ports.endpoints)
        await self._start()
        log.warning("nginx serves the sockets of a new holder")

    # --- nginx ---

    async def _start(self) -> None:
        write(self.nginx.state_dir / "conf", self.edge, self.nginx, self.found)
        clear(self.nginx.state_dir)
        self.master = await Master.start(self.program, self.nginx.state_dir, self.ports)
        self.ready(self.master.pid)
        if self.ports is not None and await self.master.answers():
            self.ports.serving()

    def _running(self) -> Master:
        assert self.master is not None  # noqa: S101 - started before anything looks after it
        return self.master

    async def _look(self) -> Outside:
        web = () if self.nginx.web is None else (self.nginx.web,)
        return await look(self.nginx.certificate_dir, (*self.edge.api, *web), self.outside)

    async def _take_in(self, now: Outside) -> None:
        """Have nginx take in what has changed around it; a certificate that cannot be used changes nothing."""
        renewed = now.certificate != self.outside.certificate and self._take_certificate()
        self.outside = replace(self.outside, certificate=now.certificate)
        if now == self.outside and not renewed:
            return
        many = len(self._running().leaving()) >= MAX_LEAVING
        if many and self._can_ask_each_time() and not self.found.ask_each_time:
            log.warning("the API's addresses change often: they are looked up at each request from now on")
            self.found = replace(self.found, ask_each_time=True)
        elif self.found.ask_each_time and not renewed:
            if many:
                return  # nginx looks the names up by itself
            self.found = replace(self.found, ask_each_time=False)
        self.outside = now
        self.found = replace(self.found, addresses=now.addresses)
        log.info("nginx reads its configuration anew: the certificate or an upstream's addresses changed")
        await self._reload(LAME)
        await self._idle(self._running().ended(), within=RELOAD_PAUSE - LAME)

    def _take_certificate(self) -> bool:
        folder = self.nginx.certificate_dir
        if folder is None or take_certificate(folder, self.nginx.state_dir):
            return True
        log.warning(UNUSABLE)
        return False

    def _can_ask_each_time(self) -> bool:
        return bool(self.nginx.resolver) and len(self.edge.api) == 1 and self.edge.api[0].host is not None

    async def _reload(self, lame: float) -> None:
        master = self._running()
        with master.closing():
            await first_of(master.ended(), within=lame)
            write(self.nginx.state_dir / "conf", self.edge, self.nginx, self.found)
            if not await master.reload():
                log.warning("nginx did not take its configuration; the one in use stays")

    # --- the end ---

    async def drain(self, grace: float, hurry: asyncio.Event, *, followed: bool) -> None:
        """Accept nothing more, and let what is under way finish.

        Args:
            grace: Seconds.
            hurry: When set, only the edge's drain_grace is left.
            followed: Whether another nginx is known to be there.
        """
        master = self.master
        if master is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        if self.ports is None:
            master.leave()
            await self._finish(master.ended, end, hurry)
            await master.kill()
            return
        with master.closing():
            await first_of(master.ended(), within=min(LAME_AT_END, grace / 4))
            if not followed:
                # Nothing tells yet whether another one comes: new requests are served as long as that goes well.
                left = end - loop.time() - min(QUEUED, grace / 4)
                await first_of(master.ended(), self.ports.superseded.wait(), self.ports.lost.wait(), within=left)
            log.info("nginx accepts nothing more, and finishes what is under way")
            former = await self._turn_away(master)
            await self._finish(lambda: master.gone(former, None), end, hurry)
            master.leave()
            await first_of(master.ended(), within=0.5)
            await master.kill()

    async def _finish(
        self, finished: Callable[[], Coroutine[Any, Any, object]], end: float, hurry: asyncio.Event
    ) -> None:
        """Wait for what is under way, until the loop's time is `end`; less long from when it is to hurry."""
        loop = asyncio.get_running_loop()
        await first_of(finished(), hurry.wait(), within=end - loop.time())
        if hurry.is_set():
            await first_of(finished(), within=min(end - loop.time(), self.edge.drain_grace))

    async def _turn_away(self, master: Master) -> set[int]:
        """Close nginx's copies of the sockets; return the workers that have everybody who is connected.

        Not by SIGQUIT: what is on its way from the front to the server within nginx would find nobody there.
        """
        former = master.accepting() | master.leaving()
        self.found = replace(self.found, listening=())
        write(self.nginx.state_dir / "conf", self.edge, self.nginx, self.found)
        await master.reload()
        return former

    async def close(self) -> None:
        """End what still runs."""
        if self.master is not None:
            await self.master.kill()
        if self.ports is not None:
            self.ports.close()
