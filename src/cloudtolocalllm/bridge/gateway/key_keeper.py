"""Keeps the encryption keys (BEK): a new one every 24 h, and the statement that the identity signs about them."""

import asyncio
import logging
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtolocalllm.bridge.gateway.identity import fingerprint_of
from cloudtolocalllm.bridge.store import preferences
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.bridge.store.store import HomeStore
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.sealed import hpke, statement
from cloudtolocalllm.sealed.key_ring import KeyRing
from cloudtolocalllm.sealed.limits import MAX_SKEW

log = logging.getLogger(__name__)


class KeyKeeper:
    """The keys of this run of the bridge; they are in memory only."""

    def __init__(self, identity: Ed25519PrivateKey, store: HomeStore, clock: Clock, ring: KeyRing) -> None:
        """Use `open`."""
        self._identity = identity
        self._store = store
        self._clock = clock
        self._ring = ring
        self._rotating = asyncio.Lock()
        self.fingerprint = fingerprint_of(identity)

    @classmethod
    async def open(cls, identity: Ed25519PrivateKey, store: HomeStore, clock: Clock) -> "KeyKeeper":
        """Make the first key of this run.

        Args:
            identity: Signs.
            store: Keeps the highest number of a statement, so that a client can refuse an older one.
            clock: The time.

        Raises:
            StoreError: The number cannot be written.
        """
        seq = await store.read(preferences.statement_seq)
        ring = KeyRing.new(_private(), clock.wall(), seq=seq)
        await store.write(lambda tx: preferences.note_statement_seq(tx, ring.seq))
        return cls(identity, store, clock, ring)

    def private_key(self, key_id: int) -> bytes | None:
        """Return the private key with an id, or None; for `RequestOpener`."""
        return self._ring.private_key(key_id, self._clock.wall())

    async def statement(self, bridge_id: str) -> str:
        """Return the statement about the current key, which is replaced before if it is time.

        Args:
            bridge_id: Ours at the server.
        """
        await self.rotate()
        now = self._clock.wall()
        return statement.sign(statement.state_keys(self._ring, bridge_id, now), self._identity)

    async def rotate(self) -> None:
        """Replace the current key if it is time; one whose life is over is forgotten."""
        async with self._rotating:
            now = self._clock.wall()
            # A clock that was set back would have the statement begin before its key was made.
            if not self._ring.due(now) and now > self._ring.current.created - MAX_SKEW:
                self._ring = self._ring.pruned(now)
                return
            ring = self._ring.rotated(_private(), now)
            try:
                # Written before it is used: no client may ever see two statements of one number.
                await self._store.write(lambda tx: preferences.note_statement_seq(tx, ring.seq))
            except StoreError:
                log.exception("the number of a new key cannot be written; the present key is used on")
                return
            self._ring = ring
            log.info("new encryption key", extra={"seq": ring.seq})


def _private() -> bytes:
    return secrets.token_bytes(hpke.KEY_BYTES)
