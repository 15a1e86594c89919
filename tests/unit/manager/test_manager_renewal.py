"""Spares that are out of date, and an engine that does not answer, as the reconciler takes them."""

import asyncio

import pytest
from tests.support.manager_parts import MemoryDriver, running

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.demands import UnavailableError
from cloudtolocalllm.manager.drivers.base import DriverUnavailableError, InstanceSpec
from cloudtolocalllm.manager.policy import Phase


class AwayDriver(MemoryDriver):
    """Its engine does not answer until it is back."""

    back = False

    async def start(self, spec: InstanceSpec) -> Endpoint:
        if not self.back:
            self.started.append(spec)
            raise DriverUnavailableError("the engine does not answer")
        return await super().start(spec)


async def test_a_spare_that_is_out_of_date_is_replaced_and_a_users_proxy_is_not() -> None:
    async with running(warm=1) as parts:
        await parts.until(lambda: len(parts.driver.running) == 1)
        mine = await parts.reconciler.ensure("u")
        await parts.until(lambda: len(parts.driver.running) == 2)
        await parts.settle()
        (spare,) = set(parts.driver.running) - {mine.id}
        parts.driver.old = {spare, mine.id}
        parts.clock.advance(1)
        await parts.reconciler.audit()
        await parts.until(lambda: spare not in parts.driver.running)
        await parts.until(lambda: len(parts.driver.running) == 2)
        assert parts.reconciler.get("u") == mine


async def test_without_an_engine_a_user_is_told_at_once_and_served_when_it_is_back() -> None:
    driver = AwayDriver()
    async with running(driver) as parts:
        with pytest.raises(UnavailableError, match="the engine does not answer"):
            async with asyncio.timeout(5):
                await parts.reconciler.ensure("u")
        assert len(driver.started) == 1  # a second try would find the same
        driver.back = True
        instance = await parts.reconciler.ensure("u")
        entry = parts.reconciler.table.get(instance.id)
        assert entry is not None
        assert entry.phase is Phase.READY
