"""What a proxy's container cannot reach, shown by exchanging bytes: a way out may accept any connection."""

import json
from collections.abc import Iterator

import pytest
from tests.support.compose_subnet import gateway
from tests.support.docker_engine import RUN_LABEL, bystander, docker, inside, process_of, remove
from tests.support.driver_hosts import docker_host, spec
from tests.support.netns import connect_in
from tests.support.reach import OUTSIDE, answered, answers_here, host_listener, own_address
from tests.support.require import require
from tests.support.stack import wait_for

from cloudtolocalllm.manager.drivers.docker import spec as specs
from cloudtolocalllm.manager.drivers.docker.spec import Isolation

pytestmark = pytest.mark.docker

LISTEN = """
import socket
with socket.create_server(("0.0.0.0", 8080)) as listener:
    while True:
        with listener.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
"""
RESOLVE = """
import socket
try:
    print(socket.getaddrinfo("example.com", 80))
except OSError as error:
    print("no", error)
"""


@pytest.fixture
def host_port() -> Iterator[int]:
    with host_listener() as port:
        yield port


@pytest.fixture
def api() -> Iterator[str]:
    """A container in another network, as the API's, that answers whoever writes."""
    network = "c2l-test-control"
    docker("network", "create", "--label", RUN_LABEL, network)
    name = "c2l-test-api"
    try:
        docker(
            "run", "-d", "--init", "--name", name, "--label", RUN_LABEL, "--network", network,
            "--entrypoint", "python3", "python:3.11-slim-bookworm", "-c", LISTEN,
        )  # fmt: skip
        address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        wait_for(lambda: answers_here(address, 8080), within=30, what="the API's container to answer")
        yield f"{address}:8080"
        assert answers_here(address, 8080), "expected the API's container to answer to the end"
    finally:
        remove(name)
        docker("network", "rm", network)


def bridge_address() -> str:
    """This machine's address in the default network."""
    address = gateway()
    require(address, "the engine's network bridge with an address", "start dockerd without --bridge=none")
    return str(address)


def own_addresses() -> set[str]:
    """This machine's addresses."""
    return {own_address(), bridge_address()}


async def test_without_a_network_there_is_nothing_to_reach(host_port: int, api: str) -> None:
    other = bystander()
    try:
        here = f"{bridge_address()}:{host_port}"
        wait_for(lambda: answered(other, here), within=30, what="the listener to answer where there is a way")
        async with docker_host(Isolation.SOCKET) as host:
            driver = await host.opened()
            one, two = spec("a"), spec("b")
            await driver.start(one)
            await driver.start(two)
            mine = specs.container_name(one.id)
            targets = {f"{address}:{host_port}" for address in own_addresses()} | {api, *OUTSIDE}
            assert answered(mine, *targets) == set()
            code, text = inside(mine, "import os; print(sorted(os.listdir('/sys/class/net')))")
            assert (code, text.strip()) == (0, "['lo']")
            listing = "import os; print([sorted(os.listdir(p)) for p in ('/run/c2l', '/run')])"
            code, text = inside(mine, listing)
            assert code == 0
            assert "http.sock" in text
            assert two.id not in text
            code, text = inside(mine, "print(open('/proc/net/unix').read())")
            assert "docker.sock" not in text
            assert text.count("http.sock") == 1
    finally:
        remove(other)


async def test_a_network_of_its_own_leads_nowhere(host_port: int, api: str) -> None:
    async with docker_host(Isolation.NETWORK) as host:
        driver = await host.opened()
        one, two = spec("a"), spec("b")
        first, second = await driver.start(one), await driver.start(two)
        pid = process_of(host.config.attach[0])
        for endpoint in (first, second):  # nginx's container reaches both
            with connect_in(pid, endpoint.host or "", endpoint.port or 0, 2) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 401"
        mine = specs.container_name(one.id)
        own = specs.subnet(host.config.subnets, 0)
        addresses = {*own_addresses(), str(own[1]), *_gateways(one.id), *_gateways(two.id)}
        targets = {f"{address}:{host_port}" for address in addresses} | {api, *OUTSIDE, str(second)}
        assert answered(mine, *targets) == set()
        wait_for(lambda: answered(mine, str(first)), within=30, what="it to get an answer at all")
        _, text = inside(mine, RESOLVE)
        assert text.startswith("no"), text  # names would be a way out: the engine's resolver asks for whoever asks it


def _gateways(instance: str) -> set[str]:
    config = json.loads(docker("network", "inspect", specs.network_name(instance), "-f", "{{json .IPAM.Config}}"))
    return {one["Gateway"] for one in config if "Gateway" in one}


async def test_nothing_of_the_user_or_the_key_is_shown_and_no_privilege_is_left() -> None:
    async with docker_host(Isolation.SOCKET) as host:
        driver = await host.opened()
        one = spec("the-user")
        await driver.start(one)
        name = specs.container_name(one.id)
        text = docker("inspect", name)
        assert one.key not in text
        described = json.loads(text)[0]
        assert described["Config"]["Labels"].pop(specs.USER) == "the-user"
        assert "the-user" not in json.dumps(described)
        assert one.key not in docker("logs", name)
        program = """
import os, json
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
out = {k: status[k] for k in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp", "Uid")}
def tries(path):
    try:
        with open(path, "w") as file:
            file.write("x")
        return "written"
    except OSError as error:
        return error.errno
out["root"] = tries("/opt/c2l/x")
out["mode"] = [line.split()[3] for line in open("/proc/mounts") if line.split()[1] == "/tmp"]
out["own"] = tries("/run/c2l/x"); out["shm"] = os.path.exists("/dev/shm")
out["keys"] = [p for p in os.listdir("/proc") if p.isdigit() and "%s" in open(f"/proc/{p}/environ").read()]
import resource; out["core"] = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps(out))
""".replace("%s", one.key)
        code, text = inside(name, program)
        assert code == 0, text
        seen = json.loads(text)
        assert {seen[key] for key in ("CapEff", "CapBnd", "CapPrm")} == {"0" * 16}
        assert seen["NoNewPrivs"] == "1"
        assert seen["Seccomp"] == "2"
        assert seen["Uid"].split() == ["10010"] * 4
        assert seen["root"] == 30  # EROFS
        assert seen["own"] == 27  # EFBIG: a proxy may make a socket there, and no file with content
        assert "noexec" in seen["mode"][0]
        assert "nosuid" in seen["mode"][0]
        assert seen["shm"] is False
        assert seen["keys"] == []
        assert seen["core"] == [0, 0]
