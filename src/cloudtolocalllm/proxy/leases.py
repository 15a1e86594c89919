"""How long each bridge may be here: until its credential ends, or until it is revoked."""

import asyncio
import logging

from cloudtolocalllm.auth.assertion import LIFETIME, SKEW
from cloudtolocalllm.link import TunnelServer
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.tunnel import GoAwayReason

log = logging.getLogger(__name__)

BARRED = LIFETIME + SKEW
"""Seconds for which a revoked bridge is refused: as long as an assertion lives that was made before that."""
MAX_BARRED = 256
"""Revoked bridges that are remembered: more than a user can have."""


class Leases:
    """Ends tunnels whose time is over."""

    __slots__ = ("_barred", "_clock", "_ends", "_tunnels")

    def __init__(self, tunnels: TunnelServer, clock: Clock) -> None:
        self._tunnels = tunnels
        self._clock = clock
        self._ends: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._barred: dict[str, float] = {}

    def take(self, bridge: str, until: int) -> bool:
        """Note that a bridge comes; return whether it may.

        Args:
            bridge: Which.
            until: When its credential ends, in seconds since the epoch; 0 for never.
        """
        if self._barred.get(bridge, 0.0) > self._clock.monotonic():
            return False
        known = self._ends.get(bridge)
        if until and (known is None or known[0] < until):
            if known is not None:
                known[1].cancel()
            delay = max(0.0, until - self._clock.wall())
            timer = asyncio.get_running_loop().call_later(delay, self._expired, bridge)
            self._ends[bridge] = (until, timer)
        return True

    def cut(self, bridge: str) -> int:
        """End a revoked bridge's tunnels and whatever runs in them, now; return how many there were."""
        self._barred.pop(bridge, None)
        while len(self._barred) >= MAX_BARRED:
            del self._barred[next(iter(self._barred))]
        self._barred[bridge] = self._clock.monotonic() + BARRED
        known = self._ends.pop(bridge, None)
        if known is not None:
            known[1].cancel()
        return self._tunnels.cut(bridge, GoAwayReason.REVOKED, "the bridge was revoked")

    def close(self) -> None:
        """Wait for no end any more."""
        for _, timer in self._ends.values():
            timer.cancel()
        self._ends.clear()

    def _expired(self, bridge: str) -> None:
        # Only its connection ends: with a renewed credential the bridge is back at once, and no stream is lost.
        # Without one it is refused, and its session ends with the resume window.
        del self._ends[bridge]
        log.info("a bridge's credential has expired", extra={"bridge": bridge})
        self._tunnels.detach(bridge)
