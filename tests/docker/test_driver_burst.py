"""Many users who arrive at once, through the API's own client and with its deadlines."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.docker_engine import proxy_image
from tests.support.eventually import eventually
from tests.support.manager_service import Manager, manager
from tests.support.short_folder import short_folder

from cloudtolocalllm.api.manager_client import ManagerBusyError, ManagerClient
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.probe import HttpProbe
from cloudtolocalllm.manager.settings import ManagerSettings
from cloudtolocalllm.runtime.http1 import HttpError

pytestmark = pytest.mark.docker

USERS = 12


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def test_users_who_arrive_at_once_are_all_served(run_dir: Path) -> None:
    async with manager(run_dir, driver="docker", image=proxy_image(), warm=2) as m:
        client = ManagerClient(m.settings.listen, lambda: m.tokens.mint("manager"))
        found = await asyncio.gather(*(client.ensure(f"u{number}") for number in range(USERS)))
        assert len({one.id for one in found}) == USERS
        probe = HttpProbe()
        assert all(await asyncio.gather(*(probe.healthy(one.endpoint, one.key, timeout=5) for one in found)))
        await asyncio.gather(*(client.remove(str(one.user)) for one in found))
        await client.close()


async def test_a_missing_image_is_told_to_who_asks(run_dir: Path) -> None:
    settings = ManagerSettings(
        service_keys=run_dir / "keys" / "public",
        run_dir=run_dir,
        listen=Endpoint(path=str(run_dir / "manager.sock")),
        driver="docker",
        image="cloudtolocalllm/none:at-all",
        warm=0,
    )
    m = Manager(settings)
    client = ManagerClient(settings.listen, lambda: m.tokens.mint("manager"))
    try:

        async def alive() -> int:
            try:
                return (await m.ask("GET", "/healthz", None)).status
            except HttpError:
                return 0

        await eventually(alive, lambda status: status == 200)
        assert (await m.ask("GET", "/readyz", None)).status == 503
        assert not await client.reachable()
        with pytest.raises(ManagerBusyError) as caught:
            await client.ensure("u")
        assert caught.value.reason == "No proxy can be made now: the container engine lacks the proxies' image."
        assert caught.value.retry_after >= 1
        told = json.loads((await m.ask("PUT", "/v1/instances/u")).body)
        assert told["type"] == "urn:c2l:problem:overloaded"
    finally:
        await client.close()
        await m.end()
