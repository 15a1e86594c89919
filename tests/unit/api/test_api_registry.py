import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.api_memory import FailingState, Turns
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.bus import CONTROL, LocalBus, user_topic
from cloudtolocalllm.api.presence import Presence, Presences
from cloudtolocalllm.api.registry import (
    HEARTBEAT,
    MAX_BRIDGES,
    MAX_NAME,
    MOVING_TTL,
    PRESENCE_TTL,
    REPLICA_TTL,
    REPLICAS,
    RETURN_TIME,
    BridgeRecord,
    Known,
    Registry,
    TooManyBridgesError,
    clean_name,
)
from cloudtolocalllm.api.revocations import Revocations, bridge_member
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth.credentials import LIFETIME
from cloudtolocalllm.contracts.control import EngineKind, EngineState, EngineStatus

ENGINES = (EngineStatus("ollama", EngineKind.OLLAMA, EngineState.UP),)


class Replica:
    """One API process, as far as bridges go; all replicas of a test share a state, and each has its own bus."""

    def __init__(self, state: FailingState, clock: FakeClock, name: str) -> None:
        self.clock = clock
        self.bus = Told()
        self.revocations = Revocations(state, self.bus, clock)
        self.presences = Presences(self.bus)
        self.registry = Registry(state, self.presences, self.revocations, self.bus, clock, replica=name)

    async def turn(self) -> None:
        """Let it write down what it noted, and give a sign of life if it is time."""
        await self.revocations.load()
        running = asyncio.get_running_loop().create_task(self.registry.run())
        await Turns().pass_()
        running.cancel()
        await asyncio.wait([running])

    async def join(self, record: BridgeRecord, *, engines: tuple[EngineStatus, ...] = ENGINES) -> Presence:
        presence = Presence(
            record.id, record.user, self.clock.now, "0.2", engines, name="Tower", expires=record.expires
        )
        self.presences.join(presence)
        self.registry.note(presence, joined=True)
        await self.turn()
        return presence

    async def leave(self, presence: Presence) -> None:
        self.presences.leave(presence)
        self.registry.note(presence)
        await self.turn()

    async def sees(self, record: BridgeRecord) -> Known | None:
        return await self.registry.find(record.user, record.id)

    async def connected(self, record: BridgeRecord) -> bool:
        known = await self.sees(record)
        return known is not None and known.connection is not None


class Told(LocalBus):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[str, Mapping[str, str]]] = []

    def publish(self, topic: str, message: Mapping[str, str]) -> None:
        self.messages.append((topic, message))
        super().publish(topic, message)


@pytest.fixture
def one(state: FailingState, clock: FakeClock) -> Replica:
    return Replica(state, clock, "one")


@pytest.fixture
def two(state: FailingState, clock: FakeClock) -> Replica:
    return Replica(state, clock, "two")


def record(clock: FakeClock, id_: str = "bridge", user: str = "u_a") -> BridgeRecord:
    return BridgeRecord(id_, user, "Desktop", clock.now, clock.now + LIFETIME)


async def test_a_bridge_is_listed_from_pairing_on_and_goes_with_its_credential(
    one: Replica, clock: FakeClock
) -> None:
    first, second = record(clock), record(clock, "another")
    await one.registry.enrol(first)
    clock.advance(1)
    second = replace(second, created=clock.now, expires=clock.now + LIFETIME)
    await one.registry.enrol(second)
    assert await one.registry.bridges("u_a") == [Known(first, None), Known(second, None)]
    assert await one.registry.bridges("u_b") == []
    clock.advance(LIFETIME - 1)
    assert await one.registry.bridges("u_a") == [Known(second, None)]
    clock.advance(1)
    assert await one.registry.bridges("u_a") == []


async def test_a_renewed_bridge_stays(one: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    clock.advance(LIFETIME / 2)
    await one.registry.enrol(replace(paired, expires=clock.now + LIFETIME))
    clock.advance(LIFETIME - 1)
    assert len(await one.registry.bridges("u_a")) == 1


async def test_replicas_see_each_others_connections(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await two.turn()
    presence = await one.join(paired)
    for replica in (one, two):
        known = await replica.sees(paired)
        assert known is not None
        assert known.connection is not None
        assert (known.connection.since, known.connection.version, known.connection.engines) == (
            clock.now, "0.2", ENGINES,
        )  # fmt: skip
        assert (known.record.name, known.record.last_seen, known.record.version) == ("Desktop", clock.now, "0.2")
    down = (EngineStatus("ollama", EngineKind.OLLAMA, EngineState.DOWN),)
    one.presences.update(presence, down)
    one.registry.note(presence)
    await one.turn()
    known = await two.sees(paired)
    assert known is not None
    assert known.connection is not None
    assert known.connection.engines == down
    clock.advance(3)
    await one.leave(presence)
    for replica in (one, two):
        known = await replica.sees(paired)
        assert known is not None
        assert known.connection is None
        assert known.record.last_seen == clock.now


async def test_all_connections_are_counted(one: Replica, two: Replica, clock: FakeClock) -> None:
    for n in range(3):
        await one.join(record(clock, f"b{n}"))
    await two.join(record(clock, "other", "u_b"))
    clock.advance(HEARTBEAT)
    await one.turn()
    await two.turn()
    assert await one.registry.connected() == await two.registry.connected() == 4


async def test_a_dead_replicas_connections_count_as_gone(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await one.join(paired)
    assert await two.connected(paired)
    clock.advance(REPLICA_TTL - 0.1)
    assert await two.connected(paired)
    clock.advance(0.1)
    assert not await two.connected(paired), "it gave no sign of life"
    assert await one.connected(paired), "what it holds itself it knows best"
    await one.turn()
    assert await two.connected(paired), "it was only slow"


async def test_a_living_replicas_connections_stay_however_long(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await one.join(paired)
    for _ in range(round(2 * PRESENCE_TTL / 60)):
        for _ in range(30):
            clock.advance(HEARTBEAT)
            await one.registry._beat()
        await one.turn()
        assert await two.connected(paired)


async def test_a_replica_that_stops_takes_its_connections_along(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    one.presences.leave(presence)
    one.registry.note(presence)
    clock.advance(5)
    await one.registry.leave()
    known = await two.sees(paired)
    assert known is not None
    assert (known.connection, known.record.last_seen) == (None, clock.now)
    await two.join(paired)
    await one.registry.leave()
    assert await one.connected(paired)


async def test_what_a_stopping_replica_could_not_close_counts_as_gone_too(
    one: Replica, two: Replica, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await one.join(paired)
    await one.registry.leave()
    assert not await two.connected(paired)


async def test_a_replica_whose_name_was_used_before_does_not_believe_its_predecessor(
    one: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await one.join(paired)
    successor = Replica(state, clock, "one")
    await successor.turn()
    assert not await successor.connected(paired)


async def test_a_bridge_that_moved_is_not_lost_when_its_old_connection_ends(
    one: Replica, two: Replica, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    old = await one.join(paired)
    clock.advance(1)
    await two.join(paired)
    one.registry.note(old)  # such as an engine's change that was still on its way
    await one.turn()
    await one.leave(old)
    assert await two.connected(paired)
    assert await one.connected(paired)


async def test_a_bridge_that_moves_in_the_very_moment_is_not_lost(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await two.turn()
    old = await one.join(paired)

    async def move() -> None:
        await two.join(paired)

    moves = [move]

    async def first() -> None:
        if moves:
            await moves.pop()()

    state.before_remove = first
    one.presences.leave(old)
    one.registry.note(old)
    await one.registry._write_noted()
    assert not moves, "expected it to happen between looking and removing"
    assert await one.connected(paired)


async def test_a_lost_state_is_written_anew(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock, tmp_path: Path
) -> None:
    paired, offline = record(clock), record(clock, "offline")
    await one.registry.enrol(paired)
    await one.registry.enrol(offline)
    await one.join(paired)
    await state.replace_with(SqliteState(tmp_path / "new.db", clock=clock))
    assert await two.registry.bridges("u_a") == []
    clock.advance(HEARTBEAT)
    await one.turn()
    await two.turn()
    known = await two.sees(paired)
    assert known is not None
    assert known.connection is not None
    assert (known.record.name, known.record.expires) == ("Tower", paired.expires), "what the bridge calls itself"
    assert await two.sees(offline) is None
    await two.join(offline)
    assert await one.connected(offline), "one that was away comes back by itself"


async def test_a_revoked_bridge_stays_out_though_the_state_was_lost(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock, tmp_path: Path
) -> None:
    paired = record(clock)
    await one.turn()
    await one.registry.enrol(paired)
    assert await one.registry.revoke("u_a", paired.id)
    await state.replace_with(SqliteState(tmp_path / "new.db", clock=clock))
    await one.turn()
    presence = await two.join(paired)
    assert two.revocations.holds(bridge_member(paired.id)), "its connection is cut by this"
    assert await two.registry.bridges("u_a") == []
    assert await one.registry.bridges("u_a") == []
    await two.leave(presence)
    assert await two.registry.bridges("u_a") == []


async def test_a_revoked_bridge_is_gone_everywhere(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await two.join(paired)
    assert not await one.registry.revoke("u_b", paired.id), "it is not theirs"
    assert not await one.registry.revoke("u_a", "guessed")
    one.bus.messages.clear()
    assert await one.registry.revoke("u_a", paired.id)
    assert (CONTROL, {"do": "revoke", "bridge": paired.id}) in one.bus.messages
    assert (user_topic("u_a"), {"changed": "bridge"}) in one.bus.messages
    assert await one.registry.bridges("u_a") == []
    assert not await one.registry.revoke("u_a", paired.id)
    await two.turn()
    assert two.revocations.holds(bridge_member(paired.id))
    assert await two.registry.bridges("u_a") == []
    await two.leave(presence)
    assert await one.registry.bridges("u_a") == [], "the end of its connection does not bring it back"
    await two.registry.enrol(paired)
    assert await one.registry.bridges("u_a") == [], "nor does a renewal that was under way"


async def test_a_revocation_outlives_every_credential_that_there_can_be(one: Replica, clock: FakeClock) -> None:
    # The entry may say less than the credential: it was renewed, and then the state was lost.
    paired = replace(record(clock), expires=clock.now + 10)
    await one.registry.enrol(paired)
    assert await one.registry.revoke("u_a", paired.id)
    clock.advance(LIFETIME)
    await one.revocations.load()
    assert one.revocations.holds(bridge_member(paired.id))
    clock.advance(LIFETIME)
    await one.revocations.load()
    assert not one.revocations.holds(bridge_member(paired.id)), "nothing is kept for ever"


async def test_a_revocation_while_the_end_is_written_down_wins(
    one: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)

    async def revoke() -> None:
        state.after_members = None
        await one.registry.revoke("u_a", paired.id)

    one.presences.leave(presence)
    one.registry.note(presence)
    state.after_members = revoke
    running = asyncio.get_running_loop().create_task(one.registry.run())
    await Turns().until(lambda: not one.registry._noted)
    running.cancel()
    await asyncio.wait([running])
    (records,) = await state.members("bridges/u_a")
    assert records == {}


async def test_renaming(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await one.join(paired)
    assert not await two.registry.rename("u_b", paired.id, "stolen")
    assert not await two.registry.rename("u_a", "guessed", "x")
    assert await two.registry.rename("u_a", paired.id, " New\u202e\n name ")
    known = await one.sees(paired)
    assert known is not None
    assert known.record.name == "New name"
    assert known.record.expires == paired.expires
    assert known.connection is not None


@pytest.mark.parametrize(
    ("text", "name"),
    [("x", "x"), ("", "unnamed"), (" \n\x00", "unnamed"), ("y" * 500, "y" * MAX_NAME), (" Frü h ", "Frü h")],
)
def test_names_are_printable_and_bounded(text: str, name: str) -> None:
    assert clean_name(text) == name


async def test_bridges_of_a_user_are_bounded(one: Replica, clock: FakeClock) -> None:
    for n in range(MAX_BRIDGES):
        await one.registry.enrol(record(clock, f"b{n}"))
    with pytest.raises(TooManyBridgesError, match=f"at most {MAX_BRIDGES}"):
        await one.registry.enrol(record(clock, "more"))
    await one.registry.enrol(replace(record(clock, "b1"), name="renewed"))
    await one.registry.enrol(record(clock, "other", "u_b"))
    assert await one.registry.revoke("u_a", "b0")
    await one.registry.enrol(record(clock, "more"))
    assert len(await one.registry.bridges("u_a")) == MAX_BRIDGES


async def test_the_state_may_be_away_for_a_while(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    joined: list[tuple[str, str, float]] = []

    async def on_joined(user: str, bridge: str, since: float) -> None:
        joined.append((user, bridge, since))

    one.registry.on_joined = on_joined
    state.fails = True
    presence = Presence(paired.id, "u_a", clock.now, "0.2", ENGINES, expires=paired.expires)
    one.presences.join(presence)
    running = asyncio.get_running_loop().create_task(one.registry.run())
    with contextlib.suppress(asyncio.CancelledError):
        one.registry.note(presence, joined=True)
        await Turns().pass_()
        one.registry.note(presence)  # and then its engines changed
        await Turns().pass_()
        assert joined == []
        with pytest.raises(StateUnavailableError):
            await two.registry.bridges("u_a")
        state.fails = False
        clock.advance(HEARTBEAT)
        one.registry.note(presence)
        await Turns().until(lambda: joined)
        running.cancel()
        await running
    assert joined == [("u_a", paired.id, clock.now - HEARTBEAT)]
    assert await two.connected(paired)
    state.fails = True
    await one.registry.leave()  # says so in the log and returns


async def test_signs_of_life_go_on_while_much_is_written(one: Replica, state: FailingState, clock: FakeClock) -> None:
    alive: list[bool] = []

    async def take_long() -> None:
        clock.advance(HEARTBEAT / 4)
        (replicas,) = await state.real.members(REPLICAS)
        alive.append("one" in replicas)

    await one.turn()
    began = clock.now
    state.after_members = take_long
    for n in range(40):
        each = record(clock, f"b{n}", f"u_{n}")
        presence = Presence(each.id, each.user, clock.now, "0.2", ENGINES, expires=each.expires)
        one.presences.join(presence)
        one.registry.note(presence, joined=True)
    await one.registry._write_noted()
    assert clock.now - began > 2 * REPLICA_TTL
    assert all(alive)


async def test_pages_are_told_once_the_others_can_know(one: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    one.bus.messages.clear()
    await one.registry.enrol(paired)
    assert one.bus.messages == [(user_topic("u_a"), {"changed": "bridge"})]
    presence = await one.join(paired)
    one.bus.messages.clear()
    one.registry.note(presence)
    await one.turn()
    assert one.bus.messages == [(user_topic("u_a"), {"changed": "bridge"})]


async def test_bridges_of_a_replica_that_stops_beside_another_are_not_told_offline_while_they_move(
    one: Replica, two: Replica, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await two.turn()  # it lives
    presence = await one.join(paired)
    await one.registry.move()
    await one.leave(presence)
    assert await one.connected(paired)  # what the edge still asks it
    await one.registry.leave()
    assert await two.connected(paired)
    assert await two.registry.connected() == 0  # counted where it will be
    clock.advance(MOVING_TTL - 1)
    await two.join(paired)
    clock.advance(2)
    assert await two.connected(paired)


async def test_a_bridge_that_does_not_move_on_is_offline_soon(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    await two.turn()
    presence = await one.join(paired)
    await one.registry.move()
    await one.leave(presence)
    await one.registry.leave()
    clock.advance(MOVING_TTL + 0.1)
    assert not await two.connected(paired)


async def test_the_only_replica_does_not_pretend(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    await one.registry.move()
    await one.leave(presence)
    await one.registry.leave()
    assert not await two.connected(paired)


async def test_a_bridge_that_was_connected_a_moment_ago_may_return(
    one: Replica, two: Replica, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    clock.advance(100)
    known = await two.sees(paired)
    assert known is not None
    assert not known.returning
    one.presences.leave(presence)  # and nothing is written down yet
    known = await one.sees(paired)
    assert known is not None
    assert (known.connection, known.returning) == (None, True)
    one.registry.note(presence)
    await one.turn()
    for replica, passed, returning in ((two, 0.0, True), (one, RETURN_TIME - 0.1, True), (one, 0.2, False)):
        clock.advance(passed)
        known = await replica.sees(paired)
        assert known is not None
        assert known.returning is returning


async def test_nobody_sees_it_gone_before_they_see_that_it_was_there(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    clock.advance(100)
    seen: list[Known | None] = []

    async def look() -> None:
        seen.append(await two.sees(paired))

    state.after_remove = look
    await one.leave(presence)
    (known,) = seen
    assert known is not None
    assert (known.connection, known.returning) == (None, True)


async def test_a_leave_whose_bridge_is_not_written_down_is_not_remembered(
    one: Replica, state: FailingState, clock: FakeClock, tmp_path: Path
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    await state.replace_with(SqliteState(tmp_path / "new.db", clock=clock))
    one.presences.leave(presence)
    one.registry.note(presence, farewell=True)
    await one.turn()
    await one.registry.enrol(replace(paired, last_seen=clock.now))  # it comes back by another replica, and is cut off
    known = await one.sees(paired)
    assert known is not None
    assert known.returning
    presence = await one.join(paired)
    await one.registry.revoke(paired.user, paired.id)
    one.presences.leave(presence)
    one.registry.note(presence, farewell=True)
    await one.turn()
    assert one.registry._farewells == set(), "nothing grows with those who are revoked"


async def test_a_leave_is_not_forgotten_while_the_state_is_away(
    one: Replica, two: Replica, state: FailingState, clock: FakeClock
) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    one.presences.leave(presence)
    one.registry.note(presence, farewell=True)
    state.fails = True
    await one.registry._write_noted()
    state.fails = False
    await one.registry._write_noted()
    known = await two.sees(paired)
    assert known is not None
    assert not known.returning


async def test_a_bridge_that_took_leave_is_not_waited_for(one: Replica, two: Replica, clock: FakeClock) -> None:
    paired = record(clock)
    await one.registry.enrol(paired)
    presence = await one.join(paired)
    one.presences.leave(presence)
    one.registry.note(presence, farewell=True)
    known = await one.sees(paired)  # before it is written down, and after
    assert known is not None
    assert (known.connection, known.returning) == (None, False)
    await one.turn()
    for replica in (one, two):
        known = await replica.sees(paired)
        assert known is not None
        assert (known.connection, known.returning) == (None, False)
    presence = await one.join(paired)  # it came back, and is cut off this time
    one.presences.leave(presence)
    one.registry.note(presence)
    await one.turn()
    known = await two.sees(paired)
    assert known is not None
    assert known.returning
