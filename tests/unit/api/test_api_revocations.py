import asyncio
from pathlib import Path

import pytest
from tests.support.api_memory import FailingState, Turns
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.bus import LocalBus
from cloudtolocalllm.api.revocations import (
    BLOCK_LIFETIME,
    GROUP,
    MARK,
    RELOAD_INTERVAL,
    WHOLE_INTERVAL,
    Revocations,
    blocked_member,
    bridge_member,
    key_member,
    named,
    provider_session_member,
    session_member,
)
from cloudtolocalllm.api.state import StateUnavailableError
from cloudtolocalllm.api.state.sqlite import SqliteState
from cloudtolocalllm.auth.sessions import LIFETIME


async def mirror(state: FailingState, clock: FakeClock, bus: LocalBus | None = None) -> Revocations:
    """Return another replica's, or with the same bus another part's of the same."""
    made = Revocations(state, bus or LocalBus(), clock)
    await made.load()
    return made


async def test_each_member_voids_what_it_names_and_nothing_else(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 10)
    await ours.add(key_member("u_a", "k"), clock.now + 10)
    await ours.add(session_member("s"), clock.now + 10)
    await ours.add(provider_session_member("p"), clock.now + 10)
    assert ours.holds(bridge_member("b"))
    assert not ours.holds(bridge_member("b2"))
    assert not ours.holds(bridge_member("k"))
    assert ours.holds(key_member("u_a", "k"))
    assert not ours.holds(key_member("u_b", "k")), "another user's key with this id is another key"
    assert ours.voids_session("s", "u", clock.now)
    assert not ours.voids_session("t", "u", clock.now)
    assert ours.voids_session("t", "u", clock.now, "p")
    assert not ours.voids_session("t", "u", clock.now, "q")
    assert ours.keys_of("u_a") == ["k"]
    assert ours.keys_of("u_b") == []


async def test_a_users_sessions_end_up_to_a_time(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)
    await ours.revoke_user("u_a", before=clock.now, lifetime=LIFETIME)
    assert ours.voids_session("s", "u_a", clock.now - 0.5)
    assert not ours.voids_session("s", "u_a", clock.now)
    assert not ours.voids_session("s", "u_b", clock.now - 0.5)
    await ours.revoke_user("u_a", before=clock.now + 5, lifetime=LIFETIME)
    assert ours.voids_session("s", "u_a", clock.now)


async def test_what_would_have_ended_by_now_is_not_kept(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)
    await ours.add(session_member("s"), clock.now)
    assert len(ours) == 0
    await ours.add(session_member("s"), clock.now + 10)
    await ours.add(session_member("t"), clock.now + WHOLE_INTERVAL + 20)
    clock.advance(WHOLE_INTERVAL)
    await ours.look()
    assert len(ours) == 1
    assert await state.members(GROUP) == [{session_member("t"): b"1"}]


async def test_another_process_sees_it_at_its_next_look(state: FailingState, clock: FakeClock) -> None:
    ours, theirs = await mirror(state, clock), await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 10)
    assert not theirs.holds(bridge_member("b"))
    await theirs.look()
    assert theirs.holds(bridge_member("b"))
    assert await ours.lift(bridge_member("b"))
    assert not ours.holds(bridge_member("b"))
    await theirs.look()
    assert not theirs.holds(bridge_member("b"))
    assert not await ours.lift(bridge_member("b"))


async def test_looking_costs_little_when_nothing_changed(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 1000)
    await ours.look()
    state.asked.clear()
    for _ in range(10):
        await ours.look()
    assert set(state.asked) == {"get"}
    clock.advance(WHOLE_INTERVAL)
    await ours.look()
    assert "members" in state.asked


async def test_two_who_revoke_at_once_lose_neither(state: FailingState, clock: FakeClock) -> None:
    ours, theirs, third = await mirror(state, clock), await mirror(state, clock), await mirror(state, clock)
    await asyncio.gather(
        *(
            m.add(bridge_member(f"{name}{n}"), clock.now + 99)
            for n in range(20)
            for name, m in (("a", ours), ("b", theirs))
        )
    )
    for each in (ours, theirs, third):
        await each.look()
        assert len(each) == 40


async def test_a_revocation_during_a_look_is_not_lost(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)

    async def revoke_meanwhile() -> None:
        state.after_members = None
        await ours.add(bridge_member("b"), clock.now + 10)
        await ours.lift(bridge_member("gone"))

    await ours.add(bridge_member("gone"), clock.now + 10)
    state.after_members = revoke_meanwhile
    await ours.load()
    assert ours.holds(bridge_member("b")), "what was read was older than what was told meanwhile"
    assert not ours.holds(bridge_member("gone"))


async def test_listeners_hear_of_each_once(state: FailingState, clock: FakeClock) -> None:
    ours, theirs = await mirror(state, clock), await mirror(state, clock)
    heard: list[frozenset[str]] = []
    theirs.on_new(heard.append)
    await ours.add(bridge_member("b"), clock.now + 10)
    await ours.add(bridge_member("c"), clock.now + 10)
    await theirs.load()
    await theirs.load()
    assert heard == [frozenset({bridge_member("b"), bridge_member("c")})]
    assert named(heard[0], bridge_member) == {"b", "c"}
    assert named(heard[0], blocked_member) == frozenset()


async def test_it_is_told_on_the_bus_and_followed_until_the_bus_closes(state: FailingState, clock: FakeClock) -> None:
    bus, turns = LocalBus(), Turns()
    ours, theirs = await mirror(state, clock, bus), await mirror(state, clock, bus)
    async with asyncio.TaskGroup() as group:
        group.create_task(theirs.follow())
        await turns.pass_()
        state.asked.clear()
        await ours.add(bridge_member("b"), clock.now + 10)
        mine = len(state.asked)
        await turns.pass_()
        assert theirs.holds(bridge_member("b"))
        assert len(state.asked) == mine, "without a look at the state"
        await ours.lift(bridge_member("b"))
        await turns.pass_()
        assert not theirs.holds(bridge_member("b"))
        bus.close()


async def test_without_the_state_those_known_go_on_to_hold(state: FailingState, clock: FakeClock) -> None:
    ours = await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 10)
    state.fails = True
    for ask in (
        ours.load(),
        ours.look(),
        ours.add(bridge_member("c"), clock.now + 10),
        ours.lift(bridge_member("b")),
    ):
        with pytest.raises(StateUnavailableError):
            await ask
    assert ours.holds(bridge_member("b"))
    assert not ours.holds(bridge_member("c"))
    state.fails = False
    await ours.look()
    assert ours.holds(bridge_member("b"))


async def test_following_goes_on_while_the_state_does_not_answer(
    state: FailingState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtolocalllm.api.revocations.RELOAD_INTERVAL", 0.0)
    assert RELOAD_INTERVAL == 1.0, "what the command line revokes holds within a second"
    bus, turns = LocalBus(), Turns()
    ours, theirs = await mirror(state, clock), await mirror(state, clock, bus)
    async with asyncio.TaskGroup() as group:
        group.create_task(theirs.follow())
        state.fails = True
        await turns.pass_()
        state.fails = False
        await ours.add(bridge_member("b"), clock.now + 10)
        await turns.until(lambda: theirs.holds(bridge_member("b")))
        bus.close()


async def test_a_lost_state_gets_back_what_replicas_know(
    state: FailingState, clock: FakeClock, tmp_path: Path
) -> None:
    ours, theirs = await mirror(state, clock), await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 10)
    await ours.add(key_member("u", "k"), clock.now + 10)
    await ours.revoke_user("u", before=clock.now, lifetime=LIFETIME)
    await theirs.look()
    await theirs.add(session_member("s"), clock.now + 10)  # ours has not seen it yet
    await state.replace_with(SqliteState(tmp_path / "new.db", clock=clock))
    fresh = await mirror(state, clock)
    assert len(fresh) == 0
    await fresh.add(bridge_member("new"), clock.now + 10)  # and marks the change
    await ours.look()
    await theirs.look()
    for each in (ours, theirs, fresh):
        await each.look()
        assert len(each) == 5
        assert each.holds(bridge_member("b"))
        assert each.holds(key_member("u", "k"))
        assert each.holds(bridge_member("new"))
        assert each.voids_session("s", "v", clock.now)
        assert each.voids_session("t", "u", clock.now - 1)
    clock.advance(LIFETIME + 1)
    await ours.load()
    assert await state.members(GROUP) == [{key_member("u", "k"): b"1"}], "only a key can live this long"
    clock.advance(BLOCK_LIFETIME)
    assert await state.members(GROUP) == [{}]


async def test_a_state_that_is_not_lost_is_not_written_to_by_looking(state: FailingState, clock: FakeClock) -> None:
    ours, theirs = await mirror(state, clock), await mirror(state, clock)
    await ours.add(bridge_member("b"), clock.now + 10)
    state.asked.clear()
    await theirs.look()
    clock.advance(5)
    await theirs.load()
    assert "add" not in state.asked
    assert "put" not in state.asked
    clock.advance(5)
    await theirs.load()
    assert len(theirs) == 0
    assert await state.get(MARK) is not None
