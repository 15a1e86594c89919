import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock
from tests.support.scripted_manager import TOKEN, ScriptedManager, scripted_manager

from cloudtolocalllm.api.manager_client import (
    CACHE_TTL,
    STALE_TTL,
    ManagerBusyError,
    ManagerClient,
    ManagerError,
    NoManagerError,
)
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.contracts.instances import InstanceState


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ScriptedManager]:
    async with scripted_manager(tmp_path) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def client(manager: ScriptedManager, clock: FakeClock) -> AsyncIterator[ManagerClient]:
    made = ManagerClient(Endpoint(path=str(manager.path)), lambda: TOKEN, timeout=1.0, patience=0.8, clock=clock)
    yield made
    await made.close()


async def test_an_instance_is_made_remembered_listed_and_removed(
    client: ManagerClient, manager: ScriptedManager
) -> None:
    instance = await client.ensure("u_a")
    assert (instance.user, instance.state) == ("u_a", InstanceState.READY)
    assert await client.ensure("u_a") == instance == await client.get("u_a")
    assert manager.puts() == 1
    assert [(i.id, i.user, i.in_flight) for i in await client.list_instances()] == [(instance.id, "u_a", 0)]
    assert await client.stats() == {"starts": 1}
    await client.remove("u_a")
    assert await client.get("u_a") is None
    assert await client.ensure("u_a") != instance


async def test_what_is_remembered_grows_old(
    client: ManagerClient, manager: ScriptedManager, clock: FakeClock
) -> None:
    await client.ensure("u_a")
    clock.advance(CACHE_TTL)
    await client.ensure("u_a")
    assert manager.puts() == 2


async def test_one_flight_serves_all_who_wait_and_survives_one_who_gives_up(
    client: ManagerClient, manager: ScriptedManager
) -> None:
    manager.delay = 0.1
    impatient = asyncio.get_running_loop().create_task(client.ensure("u_a"))
    patient = asyncio.get_running_loop().create_task(client.ensure("u_a"))
    await asyncio.sleep(0.02)
    impatient.cancel()
    assert (await patient).user == "u_a"
    assert manager.puts() == 1


async def test_users_do_not_wait_for_each_other(client: ManagerClient, manager: ScriptedManager) -> None:
    manager.delay = 0.1
    async with asyncio.timeout(1.0):
        instances = await asyncio.gather(*(client.ensure(f"u_{n}") for n in range(30)))
    assert {instance.user for instance in instances} == {f"u_{n}" for n in range(30)}


async def test_failures_are_told_apart_and_not_remembered(client: ManagerClient, manager: ScriptedManager) -> None:
    manager.capacity = 0
    with pytest.raises(ManagerBusyError) as caught:
        await client.ensure("u_a")
    assert caught.value.retry_after == 7
    manager.capacity, manager.delay = 1, 3.0
    with pytest.raises(ManagerError, match="within 1 s"):
        await client.ensure("u_a")
    manager.delay, manager.broken = 0.0, True
    for ask in (client.ensure("u_a"), client.get("u_a"), client.list_instances(), client.stats()):
        with pytest.raises(ManagerError, match="expected"):
            await ask
    assert not await client.reachable()
    manager.broken = False
    assert (await client.ensure("u_a")).user == "u_a"


async def test_anothers_instance_is_not_taken(client: ManagerClient, manager: ScriptedManager) -> None:
    manager.instances["u_a"] = manager.instance("u_b")
    with pytest.raises(ManagerError, match="this user's instance"):
        await client.ensure("u_a")
    manager.instances["u_a"] = {**manager.instance("u_a"), "state": "starting"}
    with pytest.raises(ManagerError, match="ready instance, got starting"):
        await client.ensure("u_a")


async def test_a_wrong_token_and_no_manager_are_failures(tmp_path: Path, manager: ScriptedManager) -> None:
    stranger = ManagerClient(Endpoint(path=str(manager.path)), lambda: "another-token")
    with pytest.raises(ManagerError, match="got 401"):
        await stranger.ensure("u_a")
    await stranger.close()
    lonely = ManagerClient(Endpoint(path=str(tmp_path / "none.sock")), lambda: TOKEN, patience=0.2)
    with pytest.raises(ManagerError, match="does not answer"):
        await lonely.ensure("u_a")
    assert not await lonely.reachable()
    await lonely.close()


async def test_whoever_has_no_proxy_yet_waits_for_a_manager_to_follow(tmp_path: Path) -> None:
    client = ManagerClient(Endpoint(path=str(tmp_path / "m.sock")), lambda: TOKEN, timeout=5.0, patience=5.0)
    asked = asyncio.get_running_loop().create_task(client.ensure("u_a"))
    await asyncio.sleep(0.3)
    assert not asked.done()
    async with scripted_manager(tmp_path):
        assert (await asked).user == "u_a"
        await client.close()


async def test_one_that_does_not_lead_is_asked_again(client: ManagerClient, manager: ScriptedManager) -> None:
    manager.leads = False
    asked = asyncio.get_running_loop().create_task(client.ensure("u_a"))
    await asyncio.sleep(0.25)
    assert manager.puts() > 1
    manager.leads = True
    assert (await asked).user == "u_a"


async def test_the_wait_for_a_manager_and_for_its_answer_have_one_deadline(manager: ScriptedManager) -> None:
    client = ManagerClient(Endpoint(path=str(manager.path)), lambda: TOKEN, timeout=1.0, patience=0.8)
    manager.leads, manager.delay = False, 0.9
    asked = asyncio.get_running_loop().create_task(client.ensure("u_a"))
    await asyncio.sleep(0.5)
    manager.leads = True  # too late for an answer that takes 0.9 s
    with pytest.raises(ManagerError, match=r"within 0\.[1-5] s"):
        await asked
    await client.close()


async def test_one_that_never_leads_is_given_up(manager: ScriptedManager) -> None:
    manager.leads = False
    client = ManagerClient(Endpoint(path=str(manager.path)), lambda: TOKEN, patience=0.3)
    with pytest.raises(NoManagerError, match="does not lead"):
        await client.ensure("u_a")
    await client.close()


async def test_a_known_proxy_is_used_while_no_manager_leads_and_not_for_ever(
    client: ManagerClient, manager: ScriptedManager, clock: FakeClock
) -> None:
    known = await client.ensure("u_a")
    manager.leads = False
    clock.advance(CACHE_TTL)
    assert await client.ensure("u_a") == known
    with pytest.raises(NoManagerError):
        await client.ensure("u_a", fresh=True)  # it was found dead
    manager.leads = True
    known = await client.ensure("u_a")
    manager.leads = False
    clock.advance(STALE_TTL)
    with pytest.raises(NoManagerError):
        await client.ensure("u_a")
