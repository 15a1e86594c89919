"""The pairing links that are good now, whether a paired device or the owner's command made them."""

import secrets

from cloudtolocalllm.bridge.refusal import RefusalError
from cloudtolocalllm.bridge.store import offers
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.contracts.problems import Problem
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.sealed.errors import BusyError
from cloudtolocalllm.sealed.pairing import SECRET_BYTES, PairingLink, PairingOffers


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
        self.bridge_id = ""
        """Ours at the server."""

    def make(self) -> PairingLink:
        """Return a new link.

        Raises:
            RefusalError: There are too many.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        try:
            self._offers.add(secret, self._clock.monotonic())
        except BusyError:
            raise RefusalError(
                Problem.OVERLOADED, "Too many pairing links are open; wait until one of them expires."
            ) from None
        return PairingLink(self.bridge_id, self._fingerprint, secret)

    async def take_over(self) -> None:
        """Take the offers that the owner's commands made out of the store.

        Raises:
            StoreError: It does not answer.
        """
        now = self._clock.monotonic()
        for secret, age in await self._store.write(offers.take_all):
            try:
                self._offers.add(secret, now - age)
            except BusyError:
                return

    def secret(self, pairing_id: bytes) -> bytes | None:
        """Return an offer's secret while it is good; for `RequestOpener`."""
        return self._offers.secret(pairing_id, self._clock.monotonic())

    def take(self, pairing_id: bytes) -> bool:
        """Use an offer up, once its request was opened and the device's proof held; return whether it was good."""
        return self._offers.take(pairing_id, self._clock.monotonic())
