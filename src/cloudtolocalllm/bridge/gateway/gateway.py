"""Takes what is sent to `/e2e/{bridge id}`: the key statement, sealed requests, pairings."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from cloudtolocalllm.bridge.caller import Caller
from cloudtolocalllm.bridge.exchange import Desk
from cloudtolocalllm.bridge.follower import StreamFollower, Watching
from cloudtolocalllm.bridge.gateway.inside import Inside, Serve
from cloudtolocalllm.bridge.gateway.introduction import Reception
from cloudtolocalllm.bridge.gateway.key_keeper import KeyKeeper
from cloudtolocalllm.bridge.gateway.offers import PairingDesk
from cloudtolocalllm.bridge.gateway.pairing_stream import JSON, PairingStream
from cloudtolocalllm.bridge.gateway.refusals import Told, found, refuse, say
from cloudtolocalllm.bridge.gateway.sealed_port import SealedPort
from cloudtolocalllm.bridge.gateway.sealed_stream import SealedStream
from cloudtolocalllm.bridge.home_api.api import HomeApi
from cloudtolocalllm.bridge.journal import Record
from cloudtolocalllm.bridge.port import Port
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import devices
from cloudtolocalllm.bridge.store.devices import SEEN_NOTED
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.contracts.authorize import SEALED_PREFIX
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.link import Stream, StreamHandler
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet
from cloudtolocalllm.sealed import bhttp, pairing
from cloudtolocalllm.sealed.device import DATE_FIELD, authenticate
from cloudtolocalllm.sealed.fields import Fields
from cloudtolocalllm.sealed.ohttp import REQUEST_TYPE, RequestOpener
from cloudtolocalllm.sealed.padding import DEFAULT_POLICY
from cloudtolocalllm.sealed.replay import ReplayGuard
from cloudtolocalllm.tunnel import RequestHead, ResetReason

log = logging.getLogger(__name__)

STATEMENT_TYPE = b"application/c2l-keys+jwt"
SCHEME, AUTHORITY = b"https", b"home"
MAX_TASKS = 512
"""Requests to the home API, and pairings, at once."""


class Gateway:
    """The bridge's gateway."""

    def __init__(
        self, desk: Desk, store: HomeStore, home_api: HomeApi, keys: KeyKeeper, offers: PairingDesk, serve: Serve
    ) -> None:
        """Put it together.

        Args:
            desk: What exchanges share.
            store: Knows the devices.
            home_api: Answers what is asked of the home itself.
            keys: Opens requests.
            offers: The pairing links.
            serve: Answers what is asked of engines.
        """
        self._desk = desk
        self._store = store
        self.keys = keys
        self.offers = offers
        self.reception = Reception(store, offers, desk.clock)
        self.tasks = TaskSet(limit=MAX_TASKS)
        self.inside = Inside(desk, home_api, self.tasks, serve)
        self._replays = ReplayGuard()
        self._open: dict[str, set[SealedStream]] = {}
        """Streams whose device was proved, by device."""
        self._seen: dict[str, float] = {}
        """When it was last written down that a device was seen."""
        self.bridge_id = ""
        self.padding = DEFAULT_POLICY
        """Of the answers that begin from now on."""
        store.on_device_removed = self._device_removed

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._desk.clock

    def known_as(self, bridge_id: str) -> None:
        """Take note of our id at the server."""
        self.bridge_id = self.offers.bridge_id = bridge_id

    async def tidy(self) -> None:
        """Replace keys whose time it is, and take over what the owner's commands wrote; for a timer."""
        await self.keys.rotate()
        try:
            await self.offers.take_over()
        except StoreError:
            log.exception("the pairing links in the home store cannot be read; trying again later")

    def end_events(self) -> None:
        """End the streams that would never end, so that the bridge can."""
        for streams in tuple(self._open.values()):
            for sealed in tuple(streams):
                if sealed.is_endless:
                    sealed.cut(ResetReason.REFUSED)

    async def close(self) -> None:
        """End what runs."""
        await self.tasks.close()

    # --- from the tunnel ------------------------------------------------------------------------------------------

    def __call__(self, head: RequestHead, stream: Stream, caller: Caller) -> StreamHandler:
        """Take a request.

        Raises:
            RefusalError: There is no such route.
        """
        if head.target != SEALED_PREFIX + self.bridge_id:
            raise RefusalError(Problem.NOT_FOUND, "This is another machine.")
        if head.method in ("GET", "HEAD"):
            return self._tell(self._keys_told, stream, bodyless=head.method == "HEAD")
        if head.method != "POST":
            raise RefusalError(Problem.METHOD_NOT_ALLOWED, "Expected GET or POST.")
        kind = b"".join(value for name, value in head.headers if name == b"content-type").lower()
        if kind == REQUEST_TYPE.encode():
            return SealedStream(self, stream, caller, RequestOpener(self.keys.private_key))
        if kind == pairing.REQUEST_TYPE.encode():
            return PairingStream(self, stream)
        raise RefusalError(Problem.BAD_REQUEST, f"Expected {REQUEST_TYPE} or {pairing.REQUEST_TYPE}.")

    async def _keys_told(self) -> Told:
        text = (await self.keys.statement(self.bridge_id)).encode()
        length = (b"content-length", b"%d" % len(text))
        return 200, ((b"content-type", STATEMENT_TYPE), (b"cache-control", b"no-store"), length), text

    # --- for sealed streams ---------------------------------------------------------------------------------------

    def authenticate(self, opener: RequestOpener, fields: Fields) -> str:
        """Return the device that made a request.

        Raises:
            SealedError: As `sealed.device.authenticate` does.
        """
        self._store.refresh_devices()
        now = self.clock.wall()
        device = authenticate(opener, fields, self._store.point_of, self._replays, now)
        if now - self._seen.get(device, 0.0) >= SEEN_NOTED:
            self._seen[device] = now
            self._store.post(lambda tx: devices.seen(tx, (device,)), lambda done: None)
        return device

    def admit(self, sealed: SealedStream) -> None:
        """Take note of a stream whose device was proved."""
        self._open.setdefault(sealed.device, set()).add(sealed)

    def forget(self, sealed: SealedStream) -> None:
        """Take note that a stream is over."""
        streams = self._open.get(sealed.device)
        if streams is not None:
            streams.discard(sealed)
            if not streams:
                del self._open[sealed.device]

    def begin(self, sealed: SealedStream, head: bhttp.RequestHead, port: SealedPort) -> StreamHandler:
        """Hand a request on whose device was proved.

        Raises:
            RefusalError: It is not served.
        """
        if (head.scheme, head.authority) != (SCHEME, AUTHORITY):
            raise RefusalError(Problem.BAD_REQUEST, "Expected the scheme https and the authority home.")
        if (head.method, head.path) == (b"POST", pairing.PATH):
            # It is known: it may have missed the answer to its pairing.
            return self._tell(lambda: self._device_told(sealed.device), port)
        inner = RequestHead(
            head.method.decode(), head.path.decode(), tuple(field for field in head.fields if field[0] != DATE_FIELD)
        )
        return self.inside.begin(sealed, inner, port, replace(sealed.caller, device=sealed.device))

    def introduce(self, port: SealedPort, opener: RequestOpener, head: bhttp.RequestHead, content: bytes) -> None:
        """Have a device wait for its approval that is not known and brings its key."""
        try:
            said = self.reception.introduced(opener, head, content)
            self._start(self._introducing(port, said), "introduction")
        except RefusalError as refusal:
            refuse(port, refusal, self.clock.wall())

    async def _introducing(self, port: SealedPort, said: pairing.Introduction) -> None:
        say(port, *await found(self._waiting_told(said)))

    async def _waiting_told(self, said: pairing.Introduction) -> Told:
        status, content = await self.reception.keep_waiting(said)
        return status, JSON, content

    async def _device_told(self, device: str) -> Told:
        status, content = await self.reception.known(device)
        return status, JSON, content

    def _tell(self, work: Callable[[], Awaitable[Told]], port: Port, *, bodyless: bool = False) -> StreamHandler:
        """Answer with something small that has to be looked up first."""
        record = Record("")
        watching = Watching(record, StreamFollower(record, port, bodyless=bodyless), port)
        self._start(self._telling(work, record), "telling something")
        return watching

    async def _telling(self, work: Callable[[], Awaitable[Told]], record: Record) -> None:
        status, headers, content = await found(work())
        record.start(status, headers)
        record.write(content)
        record.finish((), self.clock.monotonic())

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task.

        Raises:
            RefusalError: There are too many.
        """
        try:
            self.tasks.start(work, name)
        except RuntimeError:
            raise RefusalError(Problem.OVERLOADED, "The bridge has too many requests at once.") from None

    # --- devices --------------------------------------------------------------------------------------------------

    def _device_removed(self, device: str) -> None:
        """End at once whatever a device does."""
        self._seen.pop(device, None)
        for sealed in tuple(self._open.get(device, ())):
            if not sealed.removes_itself:
                sealed.cut(ResetReason.CANCELLED)
        self._desk.device_removed(device)
        log.info("a device was removed", extra={"device": device})
