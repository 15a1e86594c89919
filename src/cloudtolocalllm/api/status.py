"""The truth about what stands between a user and an answer."""

from collections.abc import Iterable

from cloudtolocalllm.api.manager_client import ManagerClient, ManagerError
from cloudtolocalllm.api.models import Bridge, Engine, ProxyStatus, State, StreamingStatus
from cloudtolocalllm.api.registry import BridgeRecord, Connection, Known, Registry
from cloudtolocalllm.contracts.control import EngineState
from cloudtolocalllm.runtime.clock import Clock


def overall(paired: int, connected: Iterable[Connection]) -> State:
    """Return the state that decides what a user sees first. Pure.

    Args:
        paired: Bridges of the user.
        connected: Those of them that are connected.
    """
    if not paired:
        return "no-bridge"
    connections = list(connected)
    if not connections:
        return "bridge-offline"
    states = {engine.state for connection in connections for engine in connection.engines}
    # Loading first, even beside an engine that is up: a request of this user waits for it right now.
    if EngineState.LOADING in states:
        return "loading"
    return "ready" if EngineState.UP in states else "engine-down"


def bridge_view(record: BridgeRecord, connection: Connection | None, now: float) -> Bridge:
    """Return a bridge as the API shows it. Pure.

    Args:
        record: What is kept of it.
        connection: None when it is not connected.
        now: Seconds since the epoch.
    """
    if connection is None:
        return Bridge(
            id=record.id, name=record.name, connected=False, since=None, last_seen=record.last_seen,
            version=record.version, engines=[],
        )  # fmt: skip
    engines = [Engine(id=e.id, kind=e.kind.value, state=e.state.value) for e in connection.engines]
    return Bridge(
        id=record.id, name=record.name, connected=True, since=connection.since, last_seen=now,
        version=connection.version, engines=engines,
    )  # fmt: skip


class StatusReader:
    """Gathers a user's status."""

    def __init__(self, registry: Registry, manager: ManagerClient, clock: Clock) -> None:
        self._registry = registry
        self._manager = manager
        self._clock = clock

    async def bridges(self, user: str) -> list[Bridge]:
        """Return the user's bridges, oldest first."""
        return self._views(await self._registry.bridges(user))

    async def status(self, user: str) -> StreamingStatus:
        """Return the user's status."""
        proxy = await self._proxy(user)
        known = await self._registry.bridges(user)
        connected = [item.connection for item in known if item.connection is not None]
        return StreamingStatus(state=overall(len(known), connected), bridges=self._views(known), proxy=proxy)

    def _views(self, known: list[Known]) -> list[Bridge]:
        now = self._clock.wall()
        return [bridge_view(item.record, item.connection, now) for item in known]

    async def _proxy(self, user: str) -> ProxyStatus | None:
        try:
            instance = await self._manager.get(user)
        except ManagerError:
            return ProxyStatus(state="unknown")
        return None if instance is None else ProxyStatus(state=instance.state.value)
