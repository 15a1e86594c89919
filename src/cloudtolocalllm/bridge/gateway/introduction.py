"""Devices that are to be let in: by a link, whose secret they show, or as ones that wait for somebody's approval."""

import logging

from cloudtolocalllm.bridge.gateway.offers import PairingDesk
from cloudtolocalllm.bridge.gateway.refusals import unproved
from cloudtolocalllm.bridge.home_api.schema import encoded
from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import devices
from cloudtolocalllm.bridge.store.devices import BY_LINK, Device
from cloudtolocalllm.bridge.store.errors import ConflictError, NotHereError, StoreBusyError, StoreError
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.sealed.bhttp import RequestHead
from cloudtolocalllm.sealed.device import authenticate
from cloudtolocalllm.sealed.errors import MalformedError, SealedError, UnknownDeviceError
from cloudtolocalllm.sealed.ohttp import RequestOpener
from cloudtolocalllm.sealed.pairing import PATH, Introduction, read_introduction
from cloudtolocalllm.sealed.replay import ReplayGuard

log = logging.getLogger(__name__)

MAX_INTRODUCED = 1024
"""Introductions that are remembered at once. They have a memory of their own: anybody who may use the account can
make keys and prove to have them, and so could fill the one of the paired devices."""


class Reception:
    """Lets devices in."""

    def __init__(self, store: HomeStore, offers: PairingDesk, clock: Clock) -> None:
        """Let nobody in yet.

        Args:
            store: Keeps the devices.
            offers: The links that are good.
            clock: The time.
        """
        self._store = store
        self._offers = offers
        self._clock = clock
        self._replays = ReplayGuard(MAX_INTRODUCED)

    def introduced(self, opener: RequestOpener, head: RequestHead, content: bytes) -> Introduction:
        """Return what a device says of itself, once it proved to have the key that it brings.

        Args:
            opener: Of the request, which is whole.
            head: Of the request.
            content: Of the request.

        Raises:
            RefusalError: It is no introduction, or was not proved.
        """
        if (head.method, head.path) != (b"POST", PATH):
            raise RefusalError(Problem.BAD_REQUEST, "Expected a pairing.")
        try:
            said = read_introduction(content)
        except MalformedError:
            raise RefusalError(Problem.BAD_REQUEST, "Expected a device's key, and a name for it.") from None
        points = {said.device_id: said.point}
        try:
            authenticate(opener, head.fields, points.get, self._replays, self._clock.wall())
        except SealedError as error:
            raise unproved(error) from None
        return said

    async def pair(self, said: Introduction, pairing_id: bytes) -> tuple[int, bytes]:
        """Let a device in that has shown a link's secret; return status and content of the answer.

        Args:
            said: Proved.
            pairing_id: Of the link, which is used up.

        Raises:
            RefusalError: Another device was faster, or it cannot be let in.
        """
        if not self._offers.take(pairing_id):
            raise RefusalError(Problem.CONFLICT, "This link was used just now; make a new one at home.")
        try:
            device = await self._store.pair(said.point, said.name, approved_by=BY_LINK)
        except StoreError as error:
            raise _refused(error) from None
        log.info("a device was paired by a link", extra={"device": device.id})
        return 201, encoded(device)

    async def keep_waiting(self, said: Introduction) -> tuple[int, bytes]:
        """Keep a device that waits for its approval; return status and content of the answer.

        Raises:
            RefusalError: It was removed before, or the store fails.
        """
        try:
            device = await self._store.write(lambda tx: devices.wait(tx, said.point, said.name))
        except StoreError as error:
            raise _refused(error) from None
        log.info("a device waits to be let in", extra={"device": device.id})
        return _answer_about(device)

    async def known(self, device: str) -> tuple[int, bytes]:
        """Tell a device that is paired how it stands; return status and content of the answer.

        Raises:
            RefusalError: It was removed just now, or the store fails.
        """
        try:
            return _answer_about(await self._store.read(lambda tx: devices.get(tx, device)))
        except NotHereError:
            raise unproved(UnknownDeviceError("expected a paired device")) from None
        except StoreError as error:
            raise _refused(error) from None


def _answer_about(device: Device) -> tuple[int, bytes]:
    return 200 if device.paired else 202, encoded(device)


def _refused(error: StoreError) -> RefusalError:
    if isinstance(error, ConflictError):
        text = str(error)
        return RefusalError(Problem.CONFLICT, text[:1].upper() + text[1:] + ".")
    if isinstance(error, StoreBusyError):
        return RefusalError(Problem.OVERLOADED, "The home store is busy; try again soon.")
    log.error("the home store failed", extra={"fault": str(error)})
    return RefusalError(Problem.INTERNAL, "The home store does not work now; the bridge's log says why.")
