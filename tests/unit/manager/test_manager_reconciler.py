"""The reconciler over a driver in memory that fails, hangs and loses instances as told."""

import asyncio

import pytest
from tests.support.manager_parts import MemoryDriver, running

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import InstanceState
from cloudtolocalllm.manager.demands import CapacityError, LeavingError, StartFailedError
from cloudtolocalllm.manager.drivers.base import Found, InstanceSpec

SPEC = InstanceSpec("px-00000000000000aa", "old", "cd" * 32, 1.0)


async def test_callers_at_the_same_time_share_one_start() -> None:
    async with running() as parts:
        got = await asyncio.gather(*(parts.reconciler.ensure("u") for _ in range(20)))
        assert len({one.id for one in got}) == 1
        assert got[0].state is InstanceState.READY
        assert got[0].user == "u"
        assert len(parts.driver.started) == 1
        assert await parts.reconciler.ensure("u") == got[0]


async def test_instances_have_keys_and_ids_of_their_own_that_name_nobody() -> None:
    async with running() as parts:
        a, b = await asyncio.gather(parts.reconciler.ensure("alice"), parts.reconciler.ensure("bob"))
        assert a.key != b.key
        assert len(bytes.fromhex(a.key)) == 32
        assert "alice" not in a.id


async def test_starts_run_side_by_side_and_a_hanging_one_blocks_nobody() -> None:
    driver = MemoryDriver(hang_for={"slow"}, gate=asyncio.Event())
    async with running(driver, start_timeout=3600.0) as parts:
        slow = asyncio.ensure_future(parts.reconciler.ensure("slow"))
        others = [asyncio.ensure_future(parts.reconciler.ensure(f"u{n}")) for n in range(10)]
        await parts.until(lambda: driver.most_at_once == 11)
        assert driver.gate is not None
        driver.gate.set()
        await asyncio.gather(*others)
        assert not slow.done()
        slow.cancel()


async def test_a_caller_who_goes_away_leaves_the_start_to_the_others() -> None:
    driver = MemoryDriver(gate=asyncio.Event())
    async with running(driver) as parts:
        gone = asyncio.ensure_future(parts.reconciler.ensure("u"))
        stays = asyncio.ensure_future(parts.reconciler.ensure("u"))
        await parts.until(lambda: len(driver.started) == 1)
        gone.cancel()
        assert driver.gate is not None
        driver.gate.set()
        assert (await stays).user == "u"
        assert len(driver.started) == 1


async def test_one_failed_start_is_made_good_and_two_are_told() -> None:
    driver = MemoryDriver(fail_starts=1)
    async with running(driver) as parts:
        assert (await parts.reconciler.ensure("u")).user == "u"
        assert parts.reconciler.counters.start_failures == 1
        driver.fail_starts = 2
        with pytest.raises(StartFailedError, match="2 starts failed"):
            await parts.reconciler.ensure("v")
        assert [one.user for one in driver.started] == ["u", "u", "v", "v"]
        # What the failed starts may have left is removed.
        failed = {one.id for one in driver.started} - set(driver.running)
        await parts.until(lambda: failed <= {instance for instance, _ in driver.stopped})
        assert (await parts.reconciler.ensure("v")).user == "v"


async def test_a_start_that_takes_too_long_is_given_up() -> None:
    driver = MemoryDriver(hang_for={"u"})
    async with running(driver, start_timeout=0.05) as parts:
        with pytest.raises(StartFailedError):
            await parts.reconciler.ensure("u")
        await parts.until(lambda: len(parts.reconciler.table) == 0)


async def test_spares_are_kept_claimed_and_replaced() -> None:
    async with running(warm=2) as parts:
        await parts.until(lambda: len(parts.driver.running) == 2)
        spares = set(parts.driver.running)
        instance = await parts.reconciler.ensure("u")
        assert instance.id in spares
        assert parts.driver.of("u").spec.id == instance.id  # recorded before it was handed out
        await parts.until(lambda: len(parts.driver.running) == 3)
        assert parts.reconciler.counters.claimed == 1


async def test_a_spare_that_is_still_starting_is_claimed_and_recorded() -> None:
    driver = MemoryDriver(gate=asyncio.Event())
    async with running(driver, warm=1) as parts:
        await parts.until(lambda: len(driver.started) == 1)
        asked = asyncio.ensure_future(parts.reconciler.ensure("u"))
        await parts.until(lambda: len(driver.started) == 2)
        assert driver.gate is not None
        driver.gate.set()
        assert (await asked).id == driver.started[0].id
        assert driver.of("u").spec.id == driver.started[0].id


async def test_a_claim_that_cannot_be_recorded_costs_the_spare_not_the_user() -> None:
    driver = MemoryDriver(fail_assigns=1)
    async with running(driver, warm=1) as parts:
        await parts.until(lambda: len(driver.running) == 1)
        (spare,) = driver.running
        instance = await parts.reconciler.ensure("u")
        assert instance.id != spare
        await parts.until(lambda: spare not in driver.running)


async def test_failing_spares_pause_and_users_are_served_meanwhile() -> None:
    driver = MemoryDriver(fail_starts=1)
    async with running(driver, warm=1) as parts:
        await parts.until(lambda: parts.reconciler.counters.start_failures == 1)
        await parts.settle()
        assert len(driver.started) <= 2
        assert (await parts.reconciler.ensure("u")).user == "u"


async def test_no_place_is_refused_with_a_time() -> None:
    async with running(max_instances=2) as parts:
        await asyncio.gather(parts.reconciler.ensure("a"), parts.reconciler.ensure("b"))
        with pytest.raises(CapacityError) as caught:
            await parts.reconciler.ensure("c")
        assert 1.0 <= caught.value.retry_after <= 30.0
        assert parts.reconciler.counters.refused == 1
        assert await parts.reconciler.remove("a")
        assert (await parts.reconciler.ensure("c")).user == "c"


async def test_an_instance_that_dies_is_noticed_and_the_next_call_gets_another() -> None:
    async with running() as parts:
        first = await parts.reconciler.ensure("u")
        other = await parts.reconciler.ensure("v")
        parts.driver.die(first.id)
        assert parts.reconciler.get("u") is None
        second = await parts.reconciler.ensure("u")
        assert second.id != first.id
        assert parts.reconciler.get("v") == other
        assert (first.id, 0.0) in parts.driver.stopped  # what is left of it is removed
        assert parts.reconciler.counters.ended_by_themselves == 1


async def test_an_instance_that_does_not_answer_is_replaced_after_three_looks() -> None:
    async with running() as parts:
        first = await parts.reconciler.ensure("u")
        parts.driver.of("u").answers = False
        for _ in range(2):
            await parts.reconciler.sweep()
        await parts.settle()
        assert parts.reconciler.get("u") == first
        await parts.reconciler.sweep()
        await parts.until(lambda: first.id not in parts.driver.running)
        assert (await parts.reconciler.ensure("u")).id != first.id


async def test_a_caller_whom_it_refused_has_it_checked_at_once() -> None:
    async with running() as parts:
        first = await parts.reconciler.ensure("u")
        assert await parts.reconciler.ensure("u", check=True) == first
        parts.driver.of("u").answers = False
        assert (await parts.reconciler.ensure("u", check=True)).id != first.id


async def test_idle_is_culled_after_a_last_look_and_a_stream_is_activity() -> None:
    async with running(idle_timeout=600.0) as parts:
        idle, busy = await asyncio.gather(parts.reconciler.ensure("idle"), parts.reconciler.ensure("busy"))
        parts.driver.of("busy").in_flight = 1
        parts.clock.advance(601)
        await parts.settle()
        assert len(parts.driver.running) == 2  # nothing was measured yet
        await parts.reconciler.sweep()
        parts.reconciler.wake()
        await parts.until(lambda: idle.id not in parts.driver.running)
        assert busy.id in parts.driver.running
        assert (idle.id, 2.0) in parts.driver.stopped
        assert parts.reconciler.counters.culled == 1


async def test_a_stream_that_begins_at_the_last_moment_is_not_cut() -> None:
    async with running(idle_timeout=600.0) as parts:
        instance = await parts.reconciler.ensure("u")
        parts.clock.advance(601)
        await parts.reconciler.sweep()
        parts.driver.of("u").in_flight = 1  # after the sweep, before the last look
        await parts.settle()
        assert parts.reconciler.get("u") == instance
        assert parts.driver.stopped == []


async def test_a_caller_at_the_last_moment_keeps_the_instance() -> None:
    async with running(idle_timeout=600.0) as parts:
        instance = await parts.reconciler.ensure("u")
        parts.clock.advance(601)
        await parts.reconciler.sweep()
        asked: list[asyncio.Future[object]] = []
        parts.probe.on_ask = lambda: asked.append(asyncio.ensure_future(parts.reconciler.ensure("u")))
        await parts.settle()
        assert [await one for one in asked] == [instance] * len(asked)
        assert asked
        assert parts.driver.stopped == []


async def test_what_an_earlier_manager_left_is_adopted_with_its_user() -> None:
    driver = MemoryDriver(found=[Found(SPEC, Endpoint(path=f"/run/{SPEC.id}"))])
    async with running(driver) as parts:
        instance = await parts.reconciler.ensure("old")
        assert (instance.id, instance.key) == (SPEC.id, SPEC.key)
        assert driver.started == []


async def test_strays_are_stopped_and_silent_losses_found() -> None:
    async with running() as parts:
        kept = await parts.reconciler.ensure("kept")
        lost = await parts.reconciler.ensure("lost")
        parts.clock.advance(1)
        await parts.driver.start(SPEC)
        del parts.driver.running[lost.id]
        await parts.reconciler.audit()
        await parts.until(lambda: set(parts.driver.running) == {kept.id})
        assert parts.reconciler.get("lost") is None


async def test_a_stop_that_fails_is_repeated() -> None:
    driver = MemoryDriver(fail_stops=1)
    async with running(driver) as parts:
        await parts.reconciler.ensure("u")
        assert await parts.reconciler.remove("u")
        assert driver.running == {}
        assert [grace for _, grace in driver.stopped] == [2.0, 0.0]
        assert not await parts.reconciler.remove("u")


async def test_the_end_leaves_nothing() -> None:
    driver = MemoryDriver(hang_for={"slow"})
    async with running(driver, start_timeout=3600.0) as parts:
        await parts.reconciler.ensure("u")
        waiting = asyncio.ensure_future(parts.reconciler.ensure("slow"))
        await parts.settle()
        await parts.end()
        with pytest.raises(LeavingError):
            await waiting
        assert driver.running == {}
        assert driver.closed
        with pytest.raises(LeavingError):
            await parts.reconciler.ensure("u")


async def test_the_end_leaves_the_instances_when_told_to() -> None:
    driver = MemoryDriver()
    async with running(driver, stop_on_exit=False) as parts:
        instance = await parts.reconciler.ensure("u")
    assert set(driver.running) == {instance.id}
    assert driver.closed
