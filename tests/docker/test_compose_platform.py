"""The whole platform by Compose: it gets healthy, its parts reach only whom they must, and nothing secret shows."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.compose_stack import (
    DOMAIN,
    IMAGES,
    OIDC_SECRET,
    SERVICES,
    Platform,
    built_images,
)
from tests.support.docker_engine import docker, status
from tests.support.reach import host_listener
from tests.support.stack import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

PORTS = {
    "nginx-proxy": (8080, 8443),
    "ports": (8080, 8443),
    "web-app": (8000,),
    "api-backend": (8000,),
    "streaming-proxy-manager": (8000,),
    "redis": (6379,),
}
JOINED = {
    frozenset(pair)
    for pair in (
        ("nginx-proxy", "web-app"),
        ("nginx-proxy", "api-backend"),
        ("ports", "certbot"),
        ("api-backend", "streaming-proxy-manager"),
        ("api-backend", "redis"),
        ("api-backend",),
    )
}
"""Who shares a network."""
CLOSED = ("nginx-proxy", "web-app", "streaming-proxy-manager", "redis")
"""Without a way out."""
MUTE = ("certbot", "nginx-proxy")
"""Which listen to nobody by themselves."""
ASK = r"""
trap '' PIPE
exec 3<>"/dev/tcp/$0/$1" || exit 1
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
timeout 1 cat <&3  # head would keep what it read until the end, which Redis does not send
"""
"""What comes back counts, not that the connection stands: a way out may accept any."""
SIGNS = {
    "nginx-proxy": "server: nginx",
    "ports": "server: nginx",  # which answers by the sockets that it was handed
    "web-app": "server: cloudtolocalllm",
    "api-backend": '{"status":"ok"}',
    "streaming-proxy-manager": "\nok",
    "redis": "-err wrong number",  # of arguments to GET
}
"""What each one's answer holds, in lower case."""


@pytest.fixture
def platform(acme_platform: Platform) -> Platform:
    return acme_platform


def answer(source: str, address: str, port: int) -> str:
    """Return what a container gets from an address; nothing where it reaches nobody.

    Raises:
        AssertionError: The container could not ask.
    """
    code, text = status("exec", source, "timeout", "2", "bash", "-c", ASK, address, str(port))
    # 1: refused or reset; 124: nothing, or nothing more, came. Others, and "Error", are of docker, bash or timeout.
    assert code in (0, 1, 124), f"{code}: {text}"
    assert not text.startswith("Error"), text
    return "" if "/dev/tcp/" in text or code == 1 else text.lower()


def addresses(platform: Platform, container: str) -> list[str]:
    networks = platform.inspect(container)["NetworkSettings"]["Networks"].values()
    return [network["IPAddress"] for network in networks]


def test_it_answers_over_tls(platform: Platform) -> None:
    assert "<!doctype html>" in platform.curl("/").lower()
    assert platform.status("/readyz") == 200
    refused = json.loads(platform.curl("/v1/models", "-H", "authorization: Bearer c2l_none"))
    assert refused["type"] == "urn:c2l:problem:unauthenticated"
    assert platform.curl("/", "-o", "/dev/null", "-w", "%{http_version}", host=DOMAIN) == "2"


def test_the_manager_keeps_spare_proxies_ready(platform: Platform) -> None:
    manager = platform.containers("streaming-proxy-manager")[0]

    def ready() -> bool:
        return docker("logs", manager).count('"event": "instance ready"') >= 2

    wait_for(ready, within=30, what="two spare proxies")
    inside = status("exec", platform.containers("nginx-proxy")[0], "sh", "-c", "ls /run/c2l/proxies/*/http.sock")
    assert inside[0] == 0, inside[1]


@pytest.mark.parametrize("source", sorted(SERVICES))
def test_who_reaches_whom(platform: Platform, source: str) -> None:
    one = platform.containers(source)[0]
    for port in () if source in MUTE else PORTS[source]:  # it is able to get an answer at all
        wait_for(
            lambda port=port: SIGNS[source] in answer(one, "127.0.0.1", port),
            within=30,
            what=f"{source} to reach itself",
        )
    others = {target: platform.containers(target)[-1] for target in PORTS}
    asked = [
        (target, port, address)
        for target, other in others.items()
        if other != one
        for address in addresses(platform, other)
        for port in PORTS[target]
    ]
    with ThreadPoolExecutor(4) as pool:  # one that is not reached takes seconds, and a container's share is small
        found = pool.map(lambda way: SIGNS[way[0]] in answer(one, way[2], way[1]), asked)
        reached = {(target, port) for (target, port, _), yes in zip(asked, found, strict=True) if yes}
    # nginx accepts nothing in its own networks, only by the sockets that `ports` hands it
    meant = {
        (target, port)
        for target, port, _ in asked
        if target != "nginx-proxy" and frozenset((source, target)) in JOINED
    }
    assert reached - meant == set()
    for target, port in sorted(meant - reached):  # slow, or not to be reached
        ways = [address for name, _, address in asked if name == target]
        wait_for(
            lambda ways=ways, target=target, port=port: any(SIGNS[target] in answer(one, to, port) for to in ways),
            within=30,
            what=f"{source} to reach {target}:{port}",
        )


@pytest.mark.parametrize("source", CLOSED)
def test_no_way_out(platform: Platform, source: str) -> None:
    one = platform.containers(source)[0]
    with host_listener() as port:
        gateways = [address.rsplit(".", 1)[0] + ".1" for address in addresses(platform, one)]
        assert [answer(one, gateway, port) for gateway in gateways] == [""] * len(gateways)
        # the listener does answer those who have a way to it
        edge = platform.containers("certbot")[0]
        there = addresses(platform, edge)[0].rsplit(".", 1)[0] + ".1"
        wait_for(lambda: "200 ok" in answer(edge, there, port), within=30, what="certbot to reach this machine")
    assert answer(one, "192.0.2.1", 80) == ""  # a machine's way out may answer for any address (RFC 5737)


def test_containers_are_confined_as_they_should_be(platform: Platform) -> None:
    for service in SERVICES:
        for container in platform.containers(service):
            found = platform.inspect(container)
            host = found["HostConfig"]
            assert found["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert "no-new-privileges:true" in host["SecurityOpt"], service
            assert host["Memory"] == host["MemorySwap"] > 0, service
            assert host["NanoCpus"] > 0, service
            assert host["PidsLimit"] > 0, service
            assert host["LogConfig"]["Config"]["max-size"] == "10m", service
            sockets = [mount["Source"] for mount in found["Mounts"] if "docker.sock" in mount["Source"]]
            assert bool(sockets) is (service == "streaming-proxy-manager"), service
            sees = any(mount["Destination"] == "/run/c2l/proxies" for mount in found["Mounts"])
            assert sees is (service in ("nginx-proxy", "streaming-proxy-manager")), service


def test_the_limits_are_the_missions(platform: Platform) -> None:
    wanted = {
        "nginx-proxy": (256, 0.2),
        "ports": (16, 0.1),
        "web-app": (64, 0.3),
        "api-backend": (1024, 0.5),
        "certbot": (128, 0.1),
    }
    for service, (megabytes, cpus) in wanted.items():
        host = platform.inspect(platform.containers(service)[0])["HostConfig"]
        assert (host["Memory"], host["NanoCpus"]) == (megabytes * 1024**2, round(cpus * 1e9)), service


def test_no_secret_shows(platform: Platform) -> None:
    for service in SERVICES:
        for container in platform.containers(service):
            shown = docker("inspect", container) + docker("logs", container)
            assert platform.password not in shown, service
            assert OIDC_SECRET not in shown, service
            # the last processes' own environment as well
            assert platform.password not in docker("exec", container, "cat", "/proc/1/environ"), service


def test_only_who_needs_it_sees_a_secret(platform: Platform) -> None:
    seen = {
        service: sorted(status("exec", platform.containers(service)[0], "ls", "/run/secrets")[1].split())
        for service in SERVICES
    }
    assert seen["api-backend"] == ["oidc-client-secret", "redis-url"]
    assert seen["redis"] == ["redis-auth"]
    assert all("redis" not in " ".join(found) for name, found in seen.items() if name not in ("api-backend", "redis"))


def test_any_number_of_replicas(platform: Platform) -> None:
    platform.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "api-backend=1")
    platform.await_healthy(api_backend=1)
    assert [platform.status("/readyz") for _ in range(10)] == [200] * 10
    platform.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "api-backend=3")
    platform.await_healthy(api_backend=3)

    def all_are_asked() -> bool:
        assert platform.status("/api/streaming/status") == 401
        return all("/api/streaming/status" in docker("logs", one) for one in platform.containers("api-backend"))

    wait_for(all_are_asked, within=30, what="every replica to be asked")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special_and_holds_no_key(name: str) -> None:
    image = f"cloudtolocalllm/{name}:{built_images()}"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert re.fullmatch(r"10\d{3}:10\d{3}", config["User"]), config["User"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert not any(re.search("SECRET|PASSWORD|TOKEN", variable) for variable in config["Env"])
    grep = "grep -rlsE -e '-----BEGIN [A-Z ]*PRIVATE KEY' /etc /srv /root /home /data /var /run || true"
    found = docker("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", image, "-c", grep)
    assert found == ""
