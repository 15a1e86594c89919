"""What the engine is asked for, as pure functions of the settings and the instance.

Nothing of a user gets further than one label: names, paths, environment and networks are made of the instance's id,
which the manager drew at random, and ids and users that do not look like ours are refused here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import InstanceSpec

LABEL = "org.cloudtolocalllm."
MANAGED_BY = LABEL + "managed-by"
INSTANCE = LABEL + "instance"
USER = LABEL + "user"
COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"

IMAGE = "cloudtolocalllm/streaming-proxy:latest"
PROXY_USER = 10010
SOCKET = "http.sock"
PORT = 8080
"""Where a proxy listens in its own network."""
INSIDE = "/run/c2l"
"""A proxy's own folder, as its container sees it."""
POOL = IPv4Network("10.213.0.0/16")
SUBNET_PREFIX = 28
"""Room for the proxy, nginx, the manager, and their successors while they are replaced."""
CPU_PERIOD = 400_000
"""Microseconds over which a container is held to its share. A start takes 135 ms of a processor: with half of the
usual 100 ms it would wait twice; half of this is enough for all of it."""
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path, without its final NUL (unix(7), sun_path)."""

_ID = re.compile(r"px-[0-9a-f]{16}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Isolation(Enum):
    """What keeps a proxy from everything but nginx."""

    SOCKET = "socket"
    """No network at all; a Unix socket in a folder that it shares with nginx alone."""
    NETWORK = "network"
    """An internal network of its own, in which only nginx and the manager are."""


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """What one container may use."""

    memory: int = 128 * 1024**2
    """Bytes, swap included; more ends it."""
    cpus: float = 0.5
    """Processors; time beyond it waits."""
    pids: int = 32
    """Processes and threads, the engine's init among them."""
    open_files: int = 4096


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """How the Docker driver makes proxies."""

    run_dir: Path
    url: str = "unix:///var/run/docker.sock"
    image: str = IMAGE
    isolation: Isolation = Isolation.SOCKET
    sockets: str = ""
    """The folder of the proxies' folders as the engine sees it: a path, a volume's name, or empty for `folder`."""
    attach: tuple[str, ...] = ()
    """Containers that are let into each proxy's network: names, or PROJECT/SERVICE of Compose."""
    subnets: IPv4Network = POOL
    """Where the proxies' networks are taken from."""
    limits: ContainerLimits = field(default_factory=ContainerLimits)
    user: int = PROXY_USER
    """User and group id of a proxy; nginx and the manager belong to the group."""
    drain: float = 4.0
    """Seconds that a proxy gives its streams when it is told to end."""
    orphan_timeout: float = 300.0
    """Seconds after which a proxy that no manager asks for its stats ends by itself."""

    @property
    def folder(self) -> Path:
        """Where each proxy has its own folder, shared with nginx."""
        return self.run_dir / "proxies"

    @property
    def records(self) -> Path:
        """Where the manager keeps what only it may know: no proxy and not nginx can see or change it."""
        return self.run_dir / "instances"


def check(spec: InstanceSpec) -> None:
    """Check that an instance looks like one of the manager's.

    Raises:
        ValueError: It does not; the text does not repeat it.
    """
    if not _ID.fullmatch(spec.id):
        raise ValueError("expected an instance id of px- and 16 hexadecimal digits")
    if spec.user is not None and not _USER.fullmatch(spec.user):
        raise ValueError("expected a user of 1 to 64 letters, digits, - and _")
    if not _KEY.fullmatch(spec.key):
        raise ValueError("expected a key of 64 hexadecimal digits")


def is_instance(text: str) -> bool:
    """Return whether a text is an id of the manager's: nothing else is ever removed."""
    return _ID.fullmatch(text) is not None


def check_paths(config: DockerConfig) -> None:
    """Check that sockets below the run folder can have a name.

    Raises:
        ValueError: The folder's path is relative or too long.
    """
    if not config.run_dir.is_absolute():
        raise ValueError("expected an absolute path for the run folder, got a relative one")
    length = len(bytes(config.folder / ("px-" + "0" * 16) / SOCKET))
    if length > MAX_SOCKET_PATH:
        raise ValueError(
            f"expected a run folder whose sockets' paths have at most {MAX_SOCKET_PATH} bytes, got {length}: "
            "choose a shorter one"
        )


def container_name(instance: str) -> str:
    """Return the name of an instance's container."""
    return "c2l-proxy-" + instance


def network_name(instance: str) -> str:
    """Return the name of an instance's network."""
    return "c2l-net-" + instance


def endpoint_of(config: DockerConfig, instance: str, subnet: IPv4Network | None) -> Endpoint:
    """Return where nginx and the manager reach a proxy."""
    if subnet is None:
        return Endpoint(path=str(config.folder / instance / SOCKET))
    return Endpoint(host=str(address_in(subnet)), port=PORT)


def address_in(subnet: IPv4Network) -> IPv4Address:
    """Return the proxy's own address in its network: the last, since the engine gives others the first ones."""
    return subnet[-2]


def labels(manager: str, spec: InstanceSpec) -> dict[str, str]:
    """Return the labels of everything that is made for an instance."""
    found = {MANAGED_BY: manager, INSTANCE: spec.id}
    if spec.user is not None:
        found[USER] = spec.user
    return found


def container(
    config: DockerConfig, manager: str, spec: InstanceSpec, *, image: str, sockets: str, subnet: IPv4Network | None
) -> dict[str, Any]:
    """Return the body of the request that makes a container (Engine API, ContainerCreate).

    Args:
        config: The settings.
        manager: The id of this manager.
        spec: The instance. Its key is not in the result: it goes in on standard input.
        image: The id of the image, so that nothing is ever looked up or pulled.
        sockets: The folder of the proxies' folders as the engine sees it.
        subnet: The instance's network; None for no network at all.

    Raises:
        ValueError: The instance does not look like one of the manager's.
    """
    check(spec)
    body: dict[str, Any] = {
        "Image": image,
        "Hostname": "proxy",
        "User": f"{config.user}:{config.user}",
        "Labels": labels(manager, spec),
        "Env": _environment(config, spec, subnet),
        "Healthcheck": {"Test": ["NONE"]},  # the manager asks; a look from inside costs an interpreter each time
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "HostConfig": _host_config(config),
    }
    if subnet is None:
        body["NetworkDisabled"] = True
        body["HostConfig"]["NetworkMode"] = "none"
        # No propagation is named: the engine takes rprivate, but for a volume, which lies in its own root, rslave.
        body["HostConfig"]["Mounts"] = [{"Type": "bind", "Source": f"{sockets}/{spec.id}", "Target": INSIDE}]
    else:
        name = network_name(spec.id)
        body["HostConfig"]["NetworkMode"] = name
        # The engine's resolver would ask the host's for whoever asks it, a way out by names; here nobody listens.
        body["HostConfig"]["Dns"] = ["127.0.0.1"]
        body["NetworkingConfig"] = {
            "EndpointsConfig": {name: {"IPAMConfig": {"IPv4Address": str(address_in(subnet))}}}
        }
    return body


def _environment(config: DockerConfig, spec: InstanceSpec, subnet: IPv4Network | None) -> list[str]:
    listen = f"unix:{INSIDE}/{SOCKET}" if subnet is None else f"{address_in(subnet)}:{PORT}"
    return [
        f"C2L_PROXY_INSTANCE={spec.id}",
        f"C2L_PROXY_LISTEN={listen}",
        f"C2L_PROXY_LISTEN_GROUP={'true' if subnet is None else 'false'}",
        f"C2L_PROXY_DRAIN={config.drain:g}",
        f"C2L_PROXY_ORPHAN_TIMEOUT={config.orphan_timeout:g}",
    ]


def _host_config(config: DockerConfig) -> dict[str, Any]:
    limits = config.limits
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],  # beside the engine's default seccomp filter, which stays
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=1m,mode=1777"},  # noqa: S108 - the container's own
        "IpcMode": "none",
        "Privileged": False,
        "PublishAllPorts": False,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,  # equal: no swap
        "CpuPeriod": CPU_PERIOD,
        "CpuQuota": round(limits.cpus * CPU_PERIOD),
        "PidsLimit": limits.pids,
        "OomScoreAdj": 500,  # before the platform's own services
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
            # A proxy writes no files, so what took one over cannot fill the disk that the sockets are on.
            {"Name": "fsize", "Soft": 0, "Hard": 0},
        ],
        "Init": True,  # Python as process 1 would ignore SIGTERM
        "AutoRemove": False,  # the manager asks why it ended
        "RestartPolicy": {"Name": "no"},
        # A proxy's log has no content of requests; one small file shows why a start failed.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "256k", "max-file": "1"}},
    }


def network(manager: str, spec: InstanceSpec, subnet: IPv4Network) -> dict[str, Any]:
    """Return the body of the request that makes an instance's network (Engine API, NetworkCreate).

    Internal: no route leads out. The bridge gets no address, at which the host's own listeners could be reached.
    """
    check(spec)
    return {
        "Name": network_name(spec.id),
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": True,
        "Attachable": False,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
        "Options": {
            "com.docker.network.bridge.inhibit_ipv4": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        },
        "Labels": labels(manager, spec),
    }


def filters_of(place: str) -> dict[str, list[str]]:
    """Return the filters that find the containers that a word of `DockerConfig.attach` means."""
    project, slash, service = place.partition("/")
    if slash:
        return {"label": [f"{COMPOSE_PROJECT}={project}", f"{COMPOSE_SERVICE}={service}"]}
    return {"name": [f"^/{re.escape(place)}$"]}


def is_meant(place: str, name: str, labels: Mapping[str, str]) -> bool:
    """Return whether a word of `DockerConfig.attach` means a container."""
    project, slash, service = place.partition("/")
    if slash:
        return labels.get(COMPOSE_PROJECT) == project and labels.get(COMPOSE_SERVICE) == service
    return name == place


def subnets(pool: IPv4Network) -> int:
    """Return how many networks a pool holds."""
    return 1 << max(0, SUBNET_PREFIX - pool.prefixlen)


def subnet(pool: IPv4Network, number: int) -> IPv4Network:
    """Return one of a pool's networks, counted from 0."""
    base = int(pool.network_address) + number * (1 << (32 - SUBNET_PREFIX))
    return IPv4Network((base, SUBNET_PREFIX))
