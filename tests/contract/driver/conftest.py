"""The ways to run proxies. Another one joins by a function that makes its host and a name in `HOSTS`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from tests.support.driver_hosts import Host, docker_host, process_host

from cloudtolocalllm.manager.drivers.docker.spec import Isolation

HOSTS: dict[str, Callable[[], AbstractAsyncContextManager[Host]]] = {
    "process": process_host,
    "docker-socket": lambda: docker_host(Isolation.SOCKET),
    "docker-network": lambda: docker_host(Isolation.NETWORK),
}


def _parameter(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.docker if name.startswith("docker") else ())


@pytest.fixture(params=[_parameter(name) for name in HOSTS])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    async with HOSTS[request.param]() as made:
        yield made
