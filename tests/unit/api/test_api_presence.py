import pytest

from cloudtolocalllm.api.bus import LocalBus, user_topic
from cloudtolocalllm.api.models import State
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.registry import BridgeRecord, Connection
from cloudtolocalllm.api.status import bridge_view, overall
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus

UP, DOWN, LOADING = EngineState.UP, EngineState.DOWN, EngineState.LOADING


def engines(*states: EngineState) -> tuple[EngineStatus, ...]:
    return tuple(EngineStatus(str(n), EngineKind.OLLAMA, state) for n, state in enumerate(states))


def presence(bridge: str = "b", since: float = 1.0, *states: EngineState) -> Presence:
    return Presence(bridge, "u", since, "0.1", engines(*states))


def connection(since: float = 1.0, *states: EngineState) -> Connection:
    return Connection(since, "0.1", engines(*states))


async def test_joining_changing_and_leaving_are_told_to_the_user() -> None:
    bus = LocalBus()
    mine, others = bus.subscribe(user_topic("u")), bus.subscribe(user_topic("v"))
    presences = Presences(bus)
    one = presence()
    presences.join(one)
    presences.update(one, engines(UP))
    presences.update(one, engines(UP))  # nothing new
    presences.leave(one)
    presences.leave(one)
    bus.publish(user_topic("u"), {"changed": "end"})
    assert [(await mine.get())["changed"] for _ in range(4)] == ["bridge", "bridge", "bridge", "end"]
    bus.publish(user_topic("v"), {"changed": "end"})
    assert (await others.get())["changed"] == "end"


def test_the_latest_connection_counts_and_the_end_of_the_old_one_changes_nothing() -> None:
    presences = Presences(LocalBus())
    old, new = presence(since=1.0), presence(since=2.0)
    presences.join(old)
    presences.join(new)
    assert presences.of("b") is new
    presences.leave(old)
    assert presences.of("b") is new
    presences.leave(new)
    assert presences.of("b") is None
    assert len(presences) == 0


def test_each_connected_bridge_is_told_once_by_its_latest_connection() -> None:
    presences = Presences(LocalBus())
    old, new, other = presence(since=1.0), presence(since=2.0), presence("c", since=1.0)
    for each in (old, new, other):
        presences.join(each)
    assert presences.connected() == [new, other]
    assert len(presences) == 2


@pytest.mark.parametrize(
    ("paired", "connected", "state"),
    [
        (0, [], "no-bridge"),
        (1, [], "bridge-offline"),
        (1, [()], "engine-down"),
        (1, [(DOWN,)], "engine-down"),
        (1, [(UP,)], "ready"),
        (1, [(LOADING,)], "loading"),
        (1, [(DOWN, UP)], "ready"),
        (2, [(DOWN,), (UP,)], "ready"),
        (2, [(UP,), (LOADING,)], "loading"),
        (2, [(DOWN,)], "engine-down"),
    ],
)
def test_the_overall_state(paired: int, connected: list[tuple[EngineState, ...]], state: State) -> None:
    assert overall(paired, [connection(1.0, *states) for states in connected]) == state


def test_a_bridge_is_shown_as_it_is() -> None:
    record = BridgeRecord("b", "u", "Desktop", 1.0, 200.0, 50.0, "0.0.9")
    offline = bridge_view(record, None, 100.0)
    assert (offline.connected, offline.since, offline.last_seen, offline.version) == (False, None, 50.0, "0.0.9")
    online = bridge_view(record, connection(60.0, LOADING), 100.0)
    assert (online.connected, online.since, online.last_seen, online.version) == (True, 60.0, 100.0, "0.1")
    assert [engine.model_dump() for engine in online.engines] == [{"id": "0", "kind": "ollama", "state": "loading"}]
