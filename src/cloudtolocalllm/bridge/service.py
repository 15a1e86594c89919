"""The bridge, put together: engines, journal, tunnels and uplink."""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

from cloudtolocalllm import __version__
from cloudtolocalllm.bridge.acceptor import BridgeAcceptor
from cloudtolocalllm.bridge.control import RevokedError, Uplink, websocket_url
from cloudtolocalllm.bridge.engines.address import EngineAddress
from cloudtolocalllm.bridge.engines.catalog import Catalog
from cloudtolocalllm.bridge.engines.engine import Engine
from cloudtolocalllm.bridge.engines.health import HealthWatch
from cloudtolocalllm.bridge.engines.probe import WELL_KNOWN_PORTS, probe
from cloudtolocalllm.bridge.exchange import Desk
from cloudtolocalllm.bridge.gateway.gateway import Gateway
from cloudtolocalllm.bridge.gateway.identity import load_identity
from cloudtolocalllm.bridge.gateway.key_keeper import KeyKeeper
from cloudtolocalllm.bridge.gateway.offers import PairingDesk
from cloudtolocalllm.bridge.home_api.api import HomeApi
from cloudtolocalllm.bridge.home_api.home import Home
from cloudtolocalllm.bridge.identity import BridgeIdentity, PairingError, Prover
from cloudtolocalllm.bridge.journal import Journal
from cloudtolocalllm.bridge.keys import KeyList
from cloudtolocalllm.bridge.page.server import NoPageError, Page, announcement, open_page
from cloudtolocalllm.bridge.page.status import status_of
from cloudtolocalllm.bridge.pairing import renew
from cloudtolocalllm.bridge.runs.desk import RunDesk
from cloudtolocalllm.bridge.runs.pulls import ModelDesk
from cloudtolocalllm.bridge.settings import BridgeSettings, Plain
from cloudtolocalllm.bridge.store import database, encryption
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.bridge.tunnels import Tunnels
from cloudtolocalllm.contracts.authorize import TUNNEL_TARGET
from cloudtolocalllm.contracts.control import EngineKind
from cloudtolocalllm.link.client import DialTarget
from cloudtolocalllm.runtime.clock import Clock, SystemClock
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed.padding import PaddingPolicy

log = logging.getLogger(__name__)

PROBE_INTERVAL = 15.0
"""Seconds between two looks for engines that were started later."""
EXPIRE_INTERVAL = 30.0
"""Seconds between two looks for answers that are too old to be kept."""
FIRST_CHECK = 2.0
"""Seconds that the first check of all engines may take before the bridge goes on."""
RENEW_INTERVAL = 300.0
"""Seconds between two looks whether the credential is to be renewed."""
TIDY_INTERVAL = 60.0
"""Seconds between two looks whether the home store is within its quota and time."""
KEYS_INTERVAL = 2.0
"""Seconds between two looks whether the owner has revoked a key, or removed a device, whose answers still run."""
MAX_ENGINES = 32
"""As many as a presence report holds."""


class Bridge:
    """One bridge. `start`, then `run`, then `close`."""

    def __init__(self, settings: BridgeSettings, *, clock: Clock | None = None) -> None:
        """Put the parts together; nothing is connected yet.

        Raises:
            StoreError: The home store cannot be opened, or another bridge uses it.
            PairingError: The list of API keys or the home's identity cannot be read.
        """
        self._settings = settings
        clock = clock or SystemClock()
        self.catalog = Catalog(allow_cloud_models=settings.allow_cloud_models, monotonic=clock.monotonic)
        self.journal = Journal(settings.journal_bytes)
        path = home_path(settings.credential_file)
        self._lock = StoreLock(path)
        self._lock.acquire()
        try:
            encryption.settle(path, settings.store_key)
            database.inspect(path, settings.store_key)
            self._identity = load_identity(settings.credential_file, place=settings.store_key)
            self.keys = KeyList(path, clock, place=settings.store_key)
        except BaseException:
            self._lock.release()
            raise
        self._clock = clock
        self._health = HealthWatch()
        self._tasks = TaskSet()
        desk = self._desk = Desk(
            self.catalog, self._health, self.journal, self._tasks, clock, settings.load_grace, self.keys
        )
        self.keys.on_revoked = desk.key_revoked
        self.acceptor = BridgeAcceptor(desk, allow=settings.allow, plain=_serves_plain(settings))
        self.tunnels = Tunnels(self._target, self.acceptor)
        self.prover = Prover(settings.server, lambda: BridgeIdentity.load(settings.credential_file), clock)
        self._renewing = False
        self.uplink = Uplink(
            settings.server,
            self.prover,
            name=settings.name,
            version=__version__,
            statuses=lambda: self.catalog.statuses,
            on_wake=self.tunnels.wake,
            on_welcome=self._welcomed,
            on_key=self.keys.take,
        )
        self.on_welcome: Callable[[], None] | None = None
        self.home: Home | None = None
        """The home store and what works with it; None before `start`."""
        self.home_api: HomeApi | None = None
        self.gateway: Gateway | None = None
        self.page: Page | None = None
        """The page for this machine's person; None while it is not served."""

    async def start(self) -> None:
        """Open the home store, find the engines and look how they are.

        Raises:
            StoreError: The home store cannot be opened.
        """
        settings = self._settings
        await self._open_home()
        for url in settings.engines:
            self._add(EngineAddress.parse(url, settings.engine_keys), None)
        if settings.demo_engine:
            self._add(EngineAddress.parse(settings.demo_engine, settings.engine_keys), EngineKind.DEMO)
        if not settings.engines:
            await self._probe()
            self._health.every(PROBE_INTERVAL, self._probe, "looking for engines")
        self._health.every(EXPIRE_INTERVAL, self._expire, "forgetting old answers")
        self._health.every(KEYS_INTERVAL, self._look_at_keys, "looking for revoked keys and devices")
        self._health.every(RENEW_INTERVAL, self._renew, "renewing the credential")
        engines = list(self.catalog.engines)
        checks = [self._tasks.start(engine.check(), f"first check of {engine.id}") for engine in engines]
        if checks:
            await asyncio.wait(checks, timeout=FIRST_CHECK)
        if not engines:
            log.warning("no model engine was found; start Ollama, or give its URL with --engine")
        if self.home is not None:
            self.home.runs.take_up()
        await self._open_page()

    async def run(self) -> None:
        """Hold the control connection; tunnels are dialled when it says so.

        Raises:
            RevokedError: The server does not want us any more.
        """
        await self.uplink.run()

    async def close(self) -> None:
        """Drain and end everything; what comes after a step that fails, or is cancelled, is ended all the same."""
        page, self.page = self.page, None
        async with AsyncExitStack() as steps:  # the last one first
            steps.callback(self._lock.release)
            steps.callback(self.keys.close)
            steps.push_async_callback(self._close_engines)
            steps.callback(self._desk.abort)
            steps.push_async_callback(self._tasks.close)
            steps.push_async_callback(self._close_home)
            steps.push_async_callback(self._health.close)
            steps.push_async_callback(self.tunnels.close, self._settings.drain_grace)
            if self.gateway is not None:
                steps.callback(self.gateway.end_events)
            if page is not None:
                steps.push_async_callback(page.close)

    async def _close_engines(self) -> None:
        for engine in self.catalog.engines:
            await engine.close()

    async def _open_home(self) -> None:
        clock = self._clock
        settings = self._settings
        store = await HomeStore.open(home_path(settings.credential_file), clock, place=settings.store_key)
        runs = RunDesk(store, self._desk)
        models = ModelDesk(self._desk, self._settings.allow)
        try:
            keeper = await KeyKeeper.open(self._identity, store, clock)
        except BaseException:
            await store.close()
            raise
        offers = PairingDesk(store, clock, keeper.fingerprint)
        self.home = Home(store, runs, models, self.catalog, self.keys, clock, offers)
        self.home_api = HomeApi(self.home)
        self.gateway = Gateway(self._desk, store, self.home_api, keeper, offers, self.acceptor.serve)
        self.gateway.padding = PaddingPolicy(
            interval=settings.padding_interval, stream_size=settings.padding_stream_size
        )
        self.gateway.known_as(self.prover.identity.bridge_id)
        self.acceptor.gateway = self.gateway
        self.keys.post = store.post
        runs.open()
        self._health.every(TIDY_INTERVAL, store.tidy, "tidying the home store")
        self._health.every(TIDY_INTERVAL, self.gateway.tidy, "replacing encryption keys")

    async def _open_page(self) -> None:
        settings, gateway = self._settings, self.gateway
        if settings.page_port is None or gateway is None:
            return
        try:
            self.page = await open_page(
                settings, settings.page_port, gateway.inside,
                lambda: status_of(settings.name, self.catalog.statuses), self._clock,
            )  # fmt: skip
        except NoPageError as error:
            log.warning("the page of this machine is not served; all else goes on", extra={"fault": str(error)})

    async def _close_home(self) -> None:
        home, self.home, self.home_api = self.home, None, None
        gateway, self.gateway, self.acceptor.gateway = self.gateway, None, None
        async with AsyncExitStack() as steps:
            if home is not None:
                steps.push_async_callback(home.store.close)
                steps.callback(setattr, self.keys, "post", None)
                steps.push_async_callback(home.runs.close)
                steps.callback(home.models.close)
            if gateway is not None:
                steps.push_async_callback(gateway.close)

    def _add(self, address: EngineAddress, kind: EngineKind | None) -> None:
        taken = {engine.id for engine in self.catalog.engines}
        label = "engine" if kind is None else kind.value
        engine_id = f"{label}-{address.port}"
        serial = 2
        while engine_id in taken:
            engine_id = f"{label}-{address.port}-{serial}"
            serial += 1
        engine = Engine(
            engine_id,
            address,
            self.uplink.presence_changed,
            kind=kind,
            connect_timeout=self._settings.connect_timeout,
        )
        self.catalog.add(engine)
        self._health.add(engine)
        log.info("engine", extra={"engine": engine_id, "address": address.authority})

    async def _probe(self) -> None:
        known = {engine.address.port for engine in self.catalog.engines if engine.address.is_local}
        server = EngineAddress.parse(self._settings.server)
        if server.is_local:
            known.add(server.port)  # our own edge is no engine
        for port, kind in (await probe([port for port in WELL_KNOWN_PORTS if port not in known])).items():
            if len(self.catalog.engines) < MAX_ENGINES:
                self._add(EngineAddress("127.0.0.1", port), kind)
                await self.catalog.engines[-1].check()
                self.uplink.presence_changed()

    async def _look_at_keys(self) -> None:
        self.keys.refresh()
        if self.home is not None:
            self.home.store.refresh_devices()

    async def _expire(self) -> None:
        self.journal.expire(self._clock.monotonic())

    async def _target(self) -> DialTarget:
        return DialTarget(
            websocket_url(self._settings.server, TUNNEL_TARGET),
            self.prover.fields("GET", TUNNEL_TARGET),
            self.prover.may_retry,
        )

    def _welcomed(self) -> None:
        if self.gateway is not None:
            self.gateway.known_as(self.prover.identity.bridge_id)  # it may have been paired anew
        self._tasks.start(self._renew(), "renewing the credential")
        if self.on_welcome is not None:
            self.on_welcome()

    async def _renew(self) -> None:
        """Renew the credential when it is due and the server is there."""
        if self._renewing or not self.uplink.connected:
            return
        self._renewing = True
        try:
            before = self.prover.identity
            if self._clock.wall() < before.renew_at:
                return
            renewed = await renew(self._settings.server, self.prover, clock=self._clock)
            if self.prover.identity == before:  # else it was paired anew meanwhile
                renewed.save(self._settings.credential_file)
                log.info("credential renewed", extra={"bridge": renewed.bridge_id})
        except (PairingError, OSError) as error:
            log.warning("the credential was not renewed; trying again later", extra={"fault": str(error)})
        finally:
            self._renewing = False


def _serves_plain(settings: BridgeSettings) -> bool:
    here = EngineAddress.parse(settings.server).is_local
    if settings.plain is Plain.ON and not here:
        log.warning(
            "requests that are not sealed are served: whoever runs the server can read them and their answers"
        )
    return here if settings.plain is Plain.AUTO else settings.plain is Plain.ON


async def serve(settings: BridgeSettings, stop: asyncio.Event, *, on_ready: Callable[[], None] | None = None) -> None:
    """Run a bridge until `stop` is set or the server revokes it.

    Args:
        settings: What it was told.
        stop: Ends it; running answers get the drain grace.
        on_ready: Called when the server has taken it for the first time.

    Raises:
        PairingError: There is no credential, or the home store cannot be opened.
        RevokedError: The server does not want us any more. The credential file says so from now on.
    """
    identity = BridgeIdentity.load(settings.credential_file)
    server = EngineAddress.parse(settings.server)
    if not server.tls and not server.is_local:
        log.warning("the server's URL is http: everyone on the way can read and change what passes")
    try:
        bridge = Bridge(settings)
    except StoreError as error:
        raise PairingError(str(error)) from error
    waiting = [on_ready] if on_ready is not None else []
    bridge.on_welcome = lambda: waiting.pop()() if waiting else None
    tasks = TaskSet(limit=2)
    try:
        try:
            await bridge.start()
        except StoreError as error:
            raise PairingError(str(error)) from error
        if bridge.page is not None and sys.stdout.isatty():  # never into a log: the link lets in who reads it first
            sys.stdout.write(announcement(bridge.page))
            sys.stdout.flush()
        stopped = tasks.start(stop.wait(), "stop")
        held = tasks.start(_hold(bridge), "uplink")
        await asyncio.wait((stopped, held), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await tasks.close()
        await bridge.close()
    if held.cancelled() or (revoked := held.result()) is None:
        return
    identity.void(settings.credential_file)
    if settings.leash_fd is None:
        raise revoked
    # Whoever holds the leash would start us again, and again: stay, and say why in its log.
    await stop.wait()


async def _hold(bridge: Bridge) -> RevokedError | None:
    """Return why the bridge may not go on."""
    try:
        await bridge.run()
    except RevokedError as error:
        log.error("this bridge was revoked", extra={"fault": str(error)})  # noqa: TRY400 - a traceback tells nothing
        return error
    return None
