"""The truth about what stands between a user and an answer."""

from collections.abc import Iterable

from cloudtolocalllm.api.manager_client import ManagerClient, ManagerError
from cloudtolocalllm.api.models import Bridge, Engine, ProxyStatus, State, StreamingStatus
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.store import BridgeRecord, Store
from cloudtolocalllm.contracts.control import EngineState
from cloudtolocalllm.runtime.clock import Clock


def overall(paired: int, connected: Iterable[Presence]) -> State:
    """Return the state that decides what a user sees first. Pure.

    Args:
        paired: Bridges of the user.
        connected: Those of them that are connected.
    """
    if not paired:
        return "no-bridge"
    presences = list(connected)
    if not presences:
        return "bridge-offline"
    states = {engine.state for presence in presences for engine in presence.engines}
    # Loading first, even beside an engine that is up: a request of this user waits for it right now.
    if EngineState.LOADING in states:
        return "loading"
    return "ready" if EngineState.UP in states else "engine-down"


def bridge_view(record: BridgeRecord, presence: Presence | None, now: float) -> Bridge:
    """Return a bridge as the API shows it. Pure.

    Args:
        record: What is kept of it.
        presence: None when it is not connected.
        now: Seconds since the epoch.
    """
    if presence is None:
        return Bridge(
            id=record.id, name=record.name, connected=False, since=None, last_seen=record.last_seen,
            version=record.version, engines=[],
        )  # fmt: skip
    engines = [Engine(id=e.id, kind=e.kind.value, state=e.state.value) for e in presence.engines]
    return Bridge(
        id=record.id, name=record.name, connected=True, since=presence.since, last_seen=now,
        version=presence.version, engines=engines,
    )  # fmt: skip


class StatusReader:
    """Gathers a user's status."""

    def __init__(self, store: Store, presences: Presences, manager: ManagerClient, clock: Clock) -> None:
        self._store = store
        self._presences = presences
        self._manager = manager
        self._clock = clock

    def bridges(self, user: str) -> list[Bridge]:
        """Return the user's bridges, oldest first."""
        now = self._clock.wall()
        return [bridge_view(record, self._presences.of(record.id), now) for record in self._store.list_bridges(user)]

    async def status(self, user: str) -> StreamingStatus:
        """Return the user's status."""
        proxy = await self._proxy(user)
        records = self._store.list_bridges(user)
        connected = [presence for record in records if (presence := self._presences.of(record.id)) is not None]
        return StreamingStatus(state=overall(len(records), connected), bridges=self.bridges(user), proxy=proxy)

    async def _proxy(self, user: str) -> ProxyStatus | None:
        try:
            instance = await self._manager.get(user)
        except ManagerError:
            return ProxyStatus(state="unknown")
        return None if instance is None else ProxyStatus(state=instance.state.value)
