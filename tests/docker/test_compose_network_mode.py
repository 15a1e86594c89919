"""The platform by Compose with a network for each user: chats go on, and what takes a proxy over finds nobody."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.support.compose_answers import Answers, answering, ask_at_once
from tests.support.compose_home import Home, paired_home
from tests.support.compose_stack import running_platform
from tests.support.docker_engine import DOCKER, docker, process_of
from tests.support.engines import demo_engine
from tests.support.reach import OUTSIDE, answered, host_listener, own_address
from tests.support.stack import wait_for

from cloudtolocalllm.manager.drivers.docker.spec import INSTANCE, PORT, network_name

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

MANAGER, NGINX = "streaming-proxy-manager", "nginx-proxy"


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with (
        demo_engine() as engine,
        running_platform(environ={"C2L_ISOLATION": "network"}) as platform,
        paired_home(platform, engine) as found,
    ):
        yield found


def faults(answers: Answers) -> list[str]:
    """What was refused, cut or altered."""
    return [one.fault for one in answers.done if one.fault]


def network_of(proxy: str) -> str:
    """A proxy's only network."""
    (name,) = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", proxy))
    return str(name)


def members(network: str) -> set[str]:
    """The ids of the containers in a network."""
    return set(json.loads(docker("network", "inspect", "-f", "{{json .Containers}}", network)))


def addresses(container: str) -> set[str]:
    """A container's addresses, in all its networks."""
    found = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container))
    return {one["IPAddress"] for one in found.values() if one["IPAddress"]}


def test_a_chat_streams_through_a_network_of_its_own(home: Home) -> None:
    answers = ask_at_once(home, 3, tokens=30)
    assert faults(answers) == []
    manager, nginx = home.platform.containers(MANAGER)[0], home.platform.containers(NGINX)[0]
    for proxy in home.platform.proxies():
        there = members(network_of(proxy))
        assert there == {docker("inspect", "-f", "{{.Id}}", proxy), manager, nginx}


def test_a_proxy_reaches_nobody(home: Home) -> None:
    mine = home.proxy()
    network = network_of(mine)
    (other, *_) = [name for name in home.platform.proxies() if name != mine]
    manager, nginx = home.platform.containers(MANAGER)[0], home.platform.containers(NGINX)[0]
    targets = {f"{address}:{PORT}" for address in addresses(other)}
    targets |= {f"{address}:8000" for address in addresses(manager)}
    targets |= {f"{address}:8000" for one in home.platform.containers("api-backend") for address in addresses(one)}
    targets |= {f"{address}:6379" for address in addresses(home.platform.containers("redis")[0])}
    targets |= {f"{address}:{port}" for address in addresses(nginx) for port in (8080, 8443)}
    targets |= set(OUTSIDE)
    with host_listener() as port:
        gateways = json.loads(docker("network", "inspect", "-f", "{{json .IPAM.Config}}", network))
        here = {one["Gateway"] for one in gateways} | {f"{home.platform.subnet}.0.1", own_address()}
        targets |= {f"{address}:{port}" for address in here}
        assert answered(mine, *targets) == set()
    (itself,) = addresses(mine)
    wait_for(lambda: answered(mine, f"{itself}:{PORT}"), within=30, what="it to get an answer at all")


def await_home(home: Home) -> None:
    """Wait until the bridge has found nginx again; asked at a pace that no limit stops."""

    def connected() -> bool:
        time.sleep(0.5)
        with home.client() as client:
            return client.get("/v1/models").status_code == 200

    wait_for(connected, within=60, what="the bridge to be connected again")


def test_nginx_replaced_is_let_in_again(home: Home) -> None:
    before = home.platform.containers(NGINX)[0]
    home.platform.compose("up", "-d", "-t", "2", "--no-deps", "--no-build", "--force-recreate", NGINX)
    began = time.monotonic()
    after = home.platform.containers(NGINX)[0]
    assert after != before
    networks = [network_of(proxy) for proxy in home.platform.proxies()]
    wait_for(lambda: all(after in members(one) for one in networks), within=60, what="nginx to be let in")
    print(f"\nnginx is in {len(networks)} networks {time.monotonic() - began:.2f} s after it was made")
    home.platform.await_healthy()
    await_home(home)
    answers = ask_at_once(home, 2, tokens=20)
    assert faults(answers) == []


def test_of_two_managers_one_leads_and_the_other_takes_over(home: Home) -> None:
    with scaled(home, 2):
        home.platform.await_healthy(streaming_proxy_manager=2)
        await_home(home)
        (leader,) = [one for one in home.platform.containers(MANAGER) if not stands_by(one)]
        proxy = home.proxy()
        with answering(home, 4) as answers:
            os.kill(process_of(leader), signal.SIGKILL)  # its init: the engine starts it again, as the next standby
            began = time.monotonic()
            wait_for(lambda: home.platform.status("/readyz") == 200, within=60, what="a manager to lead")
            print(f"\na manager leads again after {time.monotonic() - began:.2f} s")
        assert faults(answers) == []
        assert home.proxy() == proxy
        home.browser.delete("/api/streaming/proxy").raise_for_status()
        assert faults(ask_at_once(home, 1, tokens=5)) == []
        assert home.proxy() != proxy
        wait_for(lambda: gone(proxy), within=60, what="the old proxy and its network to be gone")


@contextlib.contextmanager
def scaled(home: Home, count: int) -> Iterator[None]:
    """Run a number of managers in the block, and one after it."""
    up = ("up", "-d", "--no-deps", "--no-build", "--no-recreate", "--scale")
    home.platform.compose(*up, f"{MANAGER}={count}", MANAGER)
    try:
        yield
    finally:
        home.platform.compose(*up, f"{MANAGER}=1", MANAGER)


def stands_by(manager: str) -> bool:
    """Whether a manager waits for another one's end; one that took over said so before."""
    done = subprocess.run([DOCKER, "logs", manager], capture_output=True, text=True, timeout=20)
    return "standing by" in done.stdout + done.stderr


def gone(proxy: str) -> bool:
    """Whether neither a container nor a network is left of a proxy."""
    instance = proxy.removeprefix("c2l-proxy-")
    containers = docker("ps", "-aq", "--filter", f"label={INSTANCE}={instance}")
    return containers == docker("network", "ls", "-q", "--filter", f"name={network_name(instance)}") == ""
