"""The pairing links that are good now, whether a paired device or the owner's command made them."""

import logging
import secrets

from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import offers
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.sealed.errors import BusyError
from cloudtolocalllm.sealed.pairing import MAX_OFFERS, SECRET_BYTES, PairingLink, PairingOffers

log = logging.getLogger(__name__)


class PairingDesk:
    """Makes links and uses them up."""

    def __init__(self, store: HomeStore, clock: Clock, fingerprint: bytes) -> None:
        """Offer nothing yet.

        Args:
            store: Through which the owner's commands hand offers over.
            clock: The time.
            fingerprint: Of this home's identity.
        """
        self._store = store
        self._clock = clock
        self._fingerprint = fingerprint
        self._offers = PairingOffers()
        self._makers: dict[bytes, str] = {}
        """Devices that made links which are good now: with a device, its links are put out."""
        self.bridge_id = ""
        """Ours at the server."""

    def make(self, device: str = "") -> PairingLink:
        """Return a new link.

        Args:
            device: Who makes it; "" for somebody at this machine.

        Raises:
            RefusalError: There are too many.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        now = self._clock.monotonic()
        try:
            pairing_id = self._offers.add(secret, now).id
        except BusyError:
            raise RefusalError(
                Problem.OVERLOADED, "Too many pairing links are open; wait until one of them expires."
            ) from None
        self._makers = {id_: maker for id_, maker in self._makers.items() if self._offers.secret(id_, now)}
        if device:
            self._makers[pairing_id] = device
        return PairingLink(self.bridge_id, self._fingerprint, secret)

    async def take_over(self) -> None:
        """Take the offers that the owner's commands made out of the store, and note which devices they put out.

        Raises:
            StoreError: It does not answer.
        """
        self._store.refresh_devices()
        now = self._clock.monotonic()
        for secret, age in await self._store.write(offers.take_all):
            self._make_room()
            try:
                self._offers.add(secret, now - age)
            except BusyError:
                log.warning("too many pairing links are open; one that the owner's command made is not good")

    def _make_room(self) -> None:
        """Have a device's link go before the owner's, the oldest first."""
        while self._offers.size >= MAX_OFFERS and self._makers:
            oldest = next(iter(self._makers))
            del self._makers[oldest]
            self.take(oldest)

    def secret(self, pairing_id: bytes) -> bytes | None:
        """Return an offer's secret while it is good; for `RequestOpener`."""
        return self._offers.secret(pairing_id, self._clock.monotonic()) if self._holds(pairing_id) else None

    def take(self, pairing_id: bytes) -> bool:
        """Use an offer up, once its request was opened and the device's proof held; return whether it was good."""
        return self._holds(pairing_id) and self._offers.take(pairing_id, self._clock.monotonic())

    def _holds(self, pairing_id: bytes) -> bool:
        maker = self._makers.get(pairing_id)
        return maker is None or self._store.point_of(maker) is not None
