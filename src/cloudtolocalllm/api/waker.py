"""Tells connected bridges to dial a user's proxy, often enough and not more."""

import contextlib
from collections import OrderedDict
from dataclasses import dataclass

from cloudtolocalllm.api.bus import CONTROL, Bus, user_topic
from cloudtolocalllm.api.state import State, StateUnavailableError
from cloudtolocalllm.runtime.clock import Clock

INTERVAL = 1.0
"""Seconds within which a bridge is not woken again for the same proxy."""
WAITING = 15.0
"""Seconds for which a request may be waiting at its proxy, so that a bridge that connects is woken at once: the
proxy's attach timeout and some slack."""
SHARE_INTERVAL = 5.0
"""Seconds between two notes for the other replicas that a user's request may be waiting."""
MAX_REMEMBERED = 20_000
"""Users; those who asked least recently are forgotten, at the cost of a wake-up too many."""


@dataclass(slots=True)
class _Wanted:
    instance: str
    asked: float
    """Monotonic seconds of the last request."""
    woken: dict[tuple[str, float], float]
    """Monotonic seconds of the last wake-up by bridge and start of its connection."""
    shared: float = float("-inf")
    """Monotonic seconds when the other replicas were last told."""


class Waker:
    """Remembers which proxy each user's bridges should dial."""

    def __init__(self, bus: Bus, state: State, clock: Clock) -> None:
        self._bus = bus
        self._state = state
        self._clock = clock
        self._wanted: OrderedDict[str, _Wanted] = OrderedDict()

    async def wake(
        self, user: str, instance: str, bridges: tuple[tuple[str, float], ...], *, fresh: bool = False
    ) -> None:
        """A request of the user goes to a proxy: wake the bridges that were not just woken for it.

        Args:
            user: Whose request.
            instance: The proxy's id.
            bridges: Connected bridges: id, and since when in seconds since the epoch. A bridge that reconnected
                counts as not woken: the wake-up may have gone to its dead connection.
            fresh: Whether to wake whatever was done before.
        """
        self._wake(user, instance, bridges, fresh)
        wanted = self._wanted[user]
        if wanted.asked - wanted.shared >= SHARE_INTERVAL:
            wanted.shared = wanted.asked
            with contextlib.suppress(StateUnavailableError):  # costs a later bridge at another replica its wake-up
                await self._state.put(f"wanted/{user}", instance.encode(), WAITING)

    def _wake(self, user: str, instance: str, bridges: tuple[tuple[str, float], ...], fresh: bool) -> None:
        now = self._clock.monotonic()
        wanted = self._wanted.get(user)
        if wanted is None or wanted.instance != instance:
            wanted = self._wanted[user] = _Wanted(instance, now, {})
            while len(self._wanted) > MAX_REMEMBERED:
                self._wanted.popitem(last=False)
            self._bus.publish(user_topic(user), {"changed": "proxy"})
        self._wanted.move_to_end(user)
        wanted.asked = now
        due = [b for b in bridges if fresh or now - wanted.woken.get(b, float("-inf")) >= INTERVAL]
        if due:
            wanted.woken = {b: at for b, at in wanted.woken.items() if b in bridges}
        for bridge in due:
            wanted.woken[bridge] = now
            self._bus.publish(CONTROL, {"do": "wake", "bridge": bridge[0], "instance": instance})

    def connected(self, user: str, bridge: str, since: float) -> None:
        """A bridge connected: wake it at once if a request may be waiting for it."""
        wanted = self._wanted.get(user)
        if wanted is not None and self._clock.monotonic() - wanted.asked < WAITING:
            asked = wanted.asked
            self._wake(user, wanted.instance, ((bridge, since),), False)
            wanted.asked = asked  # no request came, so nobody waits longer

    async def joined(self, user: str, bridge: str, since: float) -> None:
        """A bridge connected here: wake it if a request that came by another replica may be waiting for it."""
        try:
            found = await self._state.get(f"wanted/{user}")
        except StateUnavailableError:
            return
        if found is None:
            return
        instance, wanted = found.decode(), self._wanted.get(user)
        if wanted is not None and wanted.instance == instance and (bridge, since) in wanted.woken:
            return  # by `connected`, since this replica was asked too
        self._bus.publish(CONTROL, {"do": "wake", "bridge": bridge, "instance": instance})
