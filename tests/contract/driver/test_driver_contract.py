"""What every driver promises (manager/drivers/base.py), shown with real proxies."""

import asyncio

import pytest
from tests.support.driver_hosts import Host, spec
from tests.support.eventually import eventually
from tests.support.link_parts import until
from tests.support.live_stream import live_stream

from cloudtolocalllm.manager.drivers.base import DriverError


async def test_a_started_proxy_answers_its_manager_alone_and_is_listed(host: Host) -> None:
    driver = await host.opened()
    assert driver.ready
    one = spec("someone")
    endpoint = await driver.start(one)
    stats = await host.probe.stats(endpoint, one.key, timeout=2)
    assert (stats.in_flight, stats.bridges) == (0, 0)
    assert not await host.probe.healthy(endpoint, "00" * 32, timeout=2)
    assert await driver.list() == {one.id} == host.left()
    assert driver.outdated() == set()


async def test_stop_leaves_nothing_and_may_be_called_again(host: Host) -> None:
    driver = await host.opened()
    one, other = spec(), spec("other")
    await asyncio.gather(driver.start(one), driver.start(other))
    await driver.stop(one.id, 2)
    assert host.left() == {other.id}
    await driver.stop(one.id, 2)
    await driver.stop(spec().id, 0)
    assert host.gone == [one.id]
    assert await driver.list() == {other.id}


async def test_the_end_of_a_proxy_is_told_and_the_others_go_on(host: Host) -> None:
    driver = await host.opened()
    one, other = spec("u"), spec("v")
    _, endpoint = await asyncio.gather(driver.start(one), driver.start(other))
    await host.kill(one.id)
    await until(lambda: host.gone == [one.id])
    assert await host.probe.healthy(endpoint, other.key, timeout=2)
    await driver.stop(one.id, 0)
    assert host.left() == {other.id}
    with pytest.raises(DriverError):
        await driver.assign(one.id, "w")


async def test_a_start_that_is_cancelled_leaves_nothing_that_stop_does_not_remove(host: Host) -> None:
    driver = await host.opened()
    one = spec("u")
    for delay in (0.001, 0.05, 0.15):
        start = asyncio.get_running_loop().create_task(driver.start(one))
        await asyncio.wait([start], timeout=delay)
        start.cancel()
        await asyncio.wait([start])
        await driver.stop(one.id, 0)
        assert host.left() == set()


async def test_a_frozen_proxy_is_ended_by_force(host: Host) -> None:
    driver = await host.opened()
    one = spec("u")
    await driver.start(one)
    await host.freeze(one.id)
    async with asyncio.timeout(15):
        await driver.stop(one.id, 0.5)
    assert host.left() == set()


async def test_a_later_manager_adopts_what_lives_and_cuts_no_stream(host: Host) -> None:
    first = await host.opened()
    alive, spare, dead = spec("alive"), spec(), spec("dead")
    endpoint, *_ = await asyncio.gather(first.start(alive), first.start(spare), first.start(dead))
    await first.assign(spare.id, "late")
    async with live_stream(await host.door(endpoint), alive, "alive") as stream:
        await stream.exchange()
        await first.close()
        await host.kill(dead.id)
        await stream.exchange()

        second = host.driver()
        found = {one.spec.id: one for one in await second.open(host.gone.append)}
        assert {instance: one.spec.user for instance, one in found.items()} == {alive.id: "alive", spare.id: "late"}
        assert found[alive.id].spec == alive
        assert found[alive.id].endpoint == endpoint
        assert host.left() == {alive.id, spare.id}
        await stream.exchange()
        stats = await host.probe.stats(endpoint, alive.key, timeout=2)
        assert stats.in_flight == 1
        await stream.finish()
    host.gone.clear()
    await host.kill(spare.id)
    await until(lambda: host.gone == [spare.id])


async def test_a_second_manager_is_refused_until_the_first_is_gone(host: Host) -> None:
    first = await host.opened()
    one = spec("u")
    await first.start(one)
    with pytest.raises(DriverError, match="expected to be the only manager"):
        await host.driver().open(host.gone.append)
    assert host.left() == {one.id}
    await first.close()
    assert [found.spec for found in await host.driver().open(host.gone.append)] == [one]


async def test_ten_at_once_all_start(host: Host) -> None:
    driver = await host.opened()
    many = [spec(f"u{n}") for n in range(10)]
    endpoints = await asyncio.gather(*(driver.start(one) for one in many))
    assert len({str(endpoint) for endpoint in endpoints}) == 10
    assert await driver.list() == {one.id for one in many}
    await asyncio.gather(*(driver.stop(one.id, 1) for one in many))

    async def left() -> set[str]:
        return host.left()

    assert await eventually(left, lambda names: not names) == set()
