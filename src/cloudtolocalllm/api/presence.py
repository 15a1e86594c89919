"""Which bridges are connected to this process, since when, and what they say of their engines.

Pure bookkeeping: sockets and clocks are the callers'. Every change is told on the bus, where other replicas will hear
of it.
"""

from dataclasses import dataclass, field

from cloudtolocalllm.api.bus import Bus, user_topic
from cloudtolocalllm.contracts.control import EngineStatus


@dataclass(slots=True, eq=False)
class Presence:
    """One control connection whose bridge said hello."""

    bridge: str
    user: str
    since: float
    """Seconds since the epoch."""
    version: str
    engines: tuple[EngineStatus, ...] = field(default=())
    name: str = ""
    """What the bridge says its machine is called."""
    expires: float = 0.0
    """When its credential ends, in seconds since the epoch."""
    written: float = 0.0
    """When the other replicas were last told, in seconds since the epoch."""


class Presences:
    """The connected bridges.

    A bridge can for some seconds have two connections: the half-dead one that it gave up and the one that it then
    made. The latest counts.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._by_bridge: dict[str, list[Presence]] = {}

    def __len__(self) -> int:
        return len(self._by_bridge)

    def join(self, presence: Presence) -> None:
        """Take note of a connection."""
        self._by_bridge.setdefault(presence.bridge, []).append(presence)
        self._tell(presence)

    def update(self, presence: Presence, engines: tuple[EngineStatus, ...]) -> None:
        """Take note of what a bridge said of its engines."""
        if engines != presence.engines:
            presence.engines = engines
            self._tell(presence)

    def leave(self, presence: Presence) -> None:
        """Take note that a connection ended; without effect when it is not known."""
        connections = self._by_bridge.get(presence.bridge, [])
        if presence in connections:
            connections.remove(presence)
            if not connections:
                del self._by_bridge[presence.bridge]
            self._tell(presence)

    def of(self, bridge: str) -> Presence | None:
        """Return the latest connection of a bridge; None when it is not connected."""
        connections = self._by_bridge.get(bridge)
        return connections[-1] if connections else None

    def connected(self) -> list[Presence]:
        """Return the latest connection of each bridge."""
        return [connections[-1] for connections in self._by_bridge.values()]

    def _tell(self, presence: Presence) -> None:
        self._bus.publish(user_topic(presence.user), {"changed": "bridge"})
