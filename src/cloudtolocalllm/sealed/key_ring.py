"""The bridge's encryption keys (BEK): a new one every 24 h, each gone after 48 h.

A ring lives in memory only. After a restart the bridge has a new key, clients fetch its configuration and go on; so
the memory of requests seen (`replay`) and the keys they were sealed to are lost together: nothing can be replayed.
"""

from dataclasses import dataclass
from typing import Final, Self

from cloudtolocalllm.sealed import hpke
from cloudtolocalllm.sealed.key_config import KeyConfig
from cloudtolocalllm.sealed.limits import MAX_SKEW

PERIOD: Final = 24 * 3600
"""Seconds after which a new key is used."""
LIFE: Final = 48 * 3600
"""Seconds after which a key is forgotten."""
KEY_IDS: Final = 256
"""A key's id is its statement's number modulo this."""


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """One key pair of the bridge."""

    key_id: int
    private: bytes
    created: int
    """Seconds since the epoch."""

    def __repr__(self) -> str:
        return f"GatewayKey({self.key_id}, created={self.created})"

    @property
    def config(self) -> KeyConfig:
        """What clients seal to."""
        return KeyConfig(self.key_id, hpke.public_key(self.private))

    @property
    def ends(self) -> int:
        """When it is forgotten, in seconds since the epoch."""
        return self.created + LIFE


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The current key, and the one before."""

    current: GatewayKey
    seq: int
    """Number of the current key's statement; it only ever rises."""
    previous: GatewayKey | None = None

    @classmethod
    def new(cls, private: bytes, now: float, *, seq: int = 0) -> Self:
        """Return a ring of one key.

        Args:
            private: 32 random bytes.
            now: Seconds since the epoch.
            seq: The highest number that was ever used, kept beside the identity. Where it was lost the time serves,
                as it rises too, unless the clock was once ahead.
        """
        number = _after(seq, now)
        return cls(GatewayKey(number % KEY_IDS, private, int(now)), number)

    def due(self, now: float) -> bool:
        """Tell whether it is time for a new key."""
        return now >= self.current.created + PERIOD

    def rotated(self, private: bytes, now: float) -> "KeyRing":
        """Return a ring with a new key; the current one becomes the previous one.

        Args:
            private: 32 random bytes.
            now: Seconds since the epoch.
        """
        number = _after(self.seq, now)
        return KeyRing(GatewayKey(number % KEY_IDS, private, int(now)), number, self.current).pruned(now)

    def pruned(self, now: float) -> "KeyRing":
        """Return the ring without a previous key whose life is over, so that its bytes can be forgotten."""
        if self.previous is not None and now >= self.previous.ends:
            return KeyRing(self.current, self.seq)
        return self

    def private_key(self, key_id: int, now: float) -> bytes | None:
        """Return the private key with an id if its life is not over."""
        for key in (self.current, self.previous):
            if key is not None and key.key_id == key_id and now < key.ends:
                return key.private
        return None

    def expires(self) -> int:
        """Return when the current key's statement ends: before the key does, by the skew of clocks."""
        return self.current.ends - MAX_SKEW


def _after(seq: int, now: float) -> int:
    """Return the number of the statement after one: higher, and of another key id, also over a restart.

    A request for the key before is then told from a forgery, and its client to fetch the new one.
    """
    number = max(seq + 1, int(now))
    return number if number % KEY_IDS != seq % KEY_IDS else number + 1
