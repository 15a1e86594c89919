"""Notes when keys were used and bridges seen, in memory first: a write a request would cost more than the request."""

import logging
import sqlite3

from cloudtolocalllm.api.store import Store
from cloudtolocalllm.runtime.clock import Clock

log = logging.getLogger(__name__)

RESOLUTION = 60.0
"""Seconds within which a key's later uses are not noted again."""
MAX_REMEMBERED = 10_000
"""Keys; beyond it, all are noted anew, which costs one write more each."""


class Recorder:
    """Collects sightings; `flush` writes them in one transaction."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, float] = {}
        self._keys: dict[str, float] = {}
        self._bridges: dict[str, tuple[str, float, str]] = {}

    def key_used(self, id_: str) -> None:
        """A key was used now."""
        now = self._clock.wall()
        if now - self._noted.get(id_, 0.0) < RESOLUTION:
            return
        if len(self._noted) >= MAX_REMEMBERED:
            self._noted.clear()
        self._noted[id_] = now
        self._keys[id_] = now

    def bridge_seen(self, id_: str, version: str) -> None:
        """A bridge is, or was until now, connected."""
        self._bridges[id_] = (id_, self._clock.wall(), version)

    def flush(self) -> None:
        """Write what was collected; kept for the next time when the store is busy."""
        if not self._keys and not self._bridges:
            return
        try:
            self._store.touch_keys(self._keys)
            self._keys = {}
            self._store.touch_bridges(self._bridges.values())
            self._bridges = {}
        except sqlite3.OperationalError:
            log.warning("could not note sightings", exc_info=True)
