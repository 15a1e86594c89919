"""The limits of a proxy's container are felt, not only written down."""

import asyncio
import functools
import json
from ipaddress import IPv4Network

import pytest
from tests.support.docker_engine import docker, inside
from tests.support.driver_hosts import DockerHost, docker_host, spec
from tests.support.eventually import eventually
from tests.support.link_parts import until

from cloudtolocalllm.manager.drivers.base import DriverError
from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.spec import ContainerLimits, Isolation

pytestmark = pytest.mark.docker

ALLOCATE = "x = []\nwhile True: x.append(bytearray(b'x' * 2**20))"
FORK = """
import os, signal
made = []
try:
    while len(made) < 500:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        made.append(pid)
except OSError as error:
    print(len(made), error.errno)
for pid in made:
    os.kill(pid, 9); os.waitpid(pid, 0)
"""
VICTIM = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"cloudtolocalllm" + b".proxy" in open(f"/proc/{pid}/cmdline", "rb").read():
        open(f"/proc/{pid}/oom_score_adj", "w").write("1000")
x = []
while True: x.append(bytearray(b'x' * 2**20))
"""


async def test_memory_processes_and_time_are_limited() -> None:
    async with docker_host(limits=ContainerLimits(memory=64 * 2**20, cpus=0.25, pids=16)) as host:
        driver = await host.opened()
        one = spec("u")
        endpoint = await driver.start(one)
        name = specs.container_name(one.id)
        code, _ = await asyncio.to_thread(inside, name, ALLOCATE)
        assert code == 137
        code, text = await asyncio.to_thread(inside, name, FORK)
        assert code == 0, text
        made, number = map(int, text.split())
        assert made < 16
        assert number == 11  # EAGAIN
        # The proxy lived through both.
        assert await host.probe.healthy(endpoint, one.key, timeout=5)
        config = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", name))
        assert config["CpuQuota"] / config["CpuPeriod"] == 0.25
        assert config["MemorySwap"] == config["Memory"] == 64 * 2**20
        quota = "print(open('/sys/fs/cgroup/cpu/cpu.cfs_quota_us').read())"
        version2 = "print(open('/sys/fs/cgroup/cpu.max').read())"
        first, second = inside(name, quota), inside(name, version2)
        assert (first[1] if first[0] == 0 else second[1]).split()[0] == "100000"


async def test_a_proxy_that_the_kernel_ends_for_its_memory_is_noticed() -> None:
    async with docker_host(limits=ContainerLimits(memory=64 * 2**20)) as host:
        driver = await host.opened()
        one = spec("u")
        await driver.start(one)
        await asyncio.to_thread(inside, specs.container_name(one.id), VICTIM)
        await until(lambda: host.gone == [one.id])
        state = json.loads(docker("inspect", "-f", "{{json .State}}", specs.container_name(one.id)))
        assert state["OOMKilled"]
        await driver.stop(one.id, 0)
        assert host.left() == set()


async def test_the_pool_of_networks_is_not_overstepped() -> None:
    async with docker_host(Isolation.NETWORK, subnets=IPv4Network("10.214.7.0/27")) as host:
        driver = await host.opened()
        one, two, three = spec("a"), spec("b"), spec("c")
        await driver.start(one)
        await driver.start(two)
        with pytest.raises(DriverError, match="all 2 of"):
            await driver.start(three)
        await driver.stop(three.id, 0)
        await driver.stop(one.id, 0)
        await driver.start(spec("d"))


async def test_a_container_of_the_edge_that_comes_later_is_let_in() -> None:
    """Nginx is replaced while proxies run: the new one is let into every network."""
    async with docker_host(Isolation.NETWORK) as host:
        driver = await host.opened()
        one = spec("a")
        endpoint = await driver.start(one)
        (edge,) = host.config.attach
        await asyncio.to_thread(docker, "network", "disconnect", "-f", specs.network_name(one.id), edge)
        assert not await host.probe.healthy(endpoint, one.key, timeout=1)
        await asyncio.to_thread(docker, "restart", "-t", "1", edge)
        await _healthy(host, one.id)


async def test_a_later_manager_lets_the_edge_in_before_it_judges_who_answers() -> None:
    """Nginx and the manager are replaced while no manager runs: a proxy must not be ended for that."""
    async with docker_host(Isolation.NETWORK) as host:
        first = await host.opened()
        one = spec("a")
        await first.start(one)
        await first.close()
        (edge,) = host.config.attach
        await asyncio.to_thread(docker, "network", "disconnect", "-f", specs.network_name(one.id), edge)
        assert [found.spec for found in await host.driver().open(host.gone.append)] == [one]


async def _healthy(host: DockerHost, instance: str) -> None:
    (driver,) = host.made
    container = driver._containers[instance]
    endpoint = specs.endpoint_of(host.config, instance, driver._networks.subnet(instance))
    ask = functools.partial(host.probe.healthy, endpoint, container.spec.key, timeout=1)
    assert await eventually(ask, bool, within=30)
