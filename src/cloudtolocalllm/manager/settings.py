"""The manager's settings."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from cloudtolocalllm.audit.config import HELP_FOLDER, HELP_ORIGIN, HELP_SINK, HELP_SINK_TOKEN, AuditConfig
from cloudtolocalllm.audit.sinks import check_sink
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.docker.spec import (
    IMAGE,
    POOL,
    PROXY_USER,
    SUBNET_PREFIX,
    ContainerLimits,
    DockerConfig,
    Isolation,
)
from cloudtolocalllm.manager.drivers.process_spec import ProcessConfig
from cloudtolocalllm.manager.policy import NO_LIMIT, PolicyConfig
from cloudtolocalllm.runtime.forkserver import ChildLimits
from cloudtolocalllm.runtime.settings import setting

DRAIN_MARGIN = 1.0
"""Seconds by which a proxy must be done before the driver ends it by force."""
PREFIX = "C2L_MANAGER_"
START_TIMEOUTS = {"process": 10.0, "docker": 45.0}
"""Seconds, by driver: what takes longer will not come, also where a machine has ten times too much to do."""
_LIMITS = ContainerLimits()
FORKSERVER = (sys.executable, "-m", "cloudtolocalllm", "proxy-forkserver")
"""Run in the root folder with an empty environment, so the package must be installed, as it is."""


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise ValueError(f"expected a whole number of at least {least}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError("expected a number of seconds above 0")
    return value


def _driver(text: str) -> str:
    if text not in ("process", "docker"):
        raise ValueError('expected "process" or "docker"')
    return text


def _isolation(text: str) -> Isolation:
    try:
        return Isolation(text)
    except ValueError:
        raise ValueError('expected "socket" or "network"') from None


def _image(text: str) -> str:
    # The characters of a reference (distribution's reference grammar): nothing that a URL's path could be left by.
    if not re.fullmatch(r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}", text, re.ASCII) or ".." in text:
        raise ValueError("expected an image such as cloudtolocalllm/streaming-proxy:latest")
    return text


def _engine(text: str) -> str:
    if not text.startswith(("unix:///", "tcp://", "https://")):
        raise ValueError("expected unix:///path, tcp://host:port or https://host:port")
    return text


def _sockets(text: str) -> str:
    if text and not re.fullmatch(r"/[^\0\n]*|[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", text, re.ASCII):
        raise ValueError("expected an absolute path, or a volume's name")
    return text


def _containers(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    word = re.compile(r"([a-z0-9][a-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
    if not all(word.fullmatch(name) for name in names):
        raise ValueError("expected names of containers, or PROJECT/SERVICE of Compose, separated by commas")
    return names


def _subnets(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError:
        raise ValueError("expected an IPv4 network such as 10.213.0.0/16") from None
    if network.prefixlen > SUBNET_PREFIX:
        raise ValueError(f"expected an IPv4 network of /{SUBNET_PREFIX} or larger")
    return network


def _cpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 1024:
        raise ValueError("expected a number of processors of at least 0.01")
    return value


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the manager is told at its start."""

    service_keys: Path = setting("Folder of the public keys of the services that may call: api.json.")
    run_dir: Path = setting("Folder for the proxies' sockets and records; absolute, and of at most 69 bytes.")
    listen: Endpoint = setting('Where the API listens: "unix:/path" or "host:port".', parse=Endpoint.parse)
    warm: int = setting("Spare proxies kept ready.", default=1, parse=_whole(0))
    max_instances: int = setting("Proxies at most.", default=2000, parse=_whole(1))
    idle_timeout: float = setting("Seconds without a stream after which a proxy ends.", default=600.0, parse=_seconds)
    start_timeout: float | None = setting(
        "Seconds within which a proxy that is being started must be ready; unset, 10 for a process and 45 for a "
        "container.",
        default=None,
        parse=_seconds,
    )
    poll_interval: float = setting("Seconds between two looks at a proxy.", default=30.0, parse=_seconds)
    orphan_timeout: float = setting(
        "Seconds after which a proxy that no manager looks at ends by itself.", default=300.0, parse=_seconds
    )
    stop_grace: float = setting("Seconds that a proxy has to finish its streams.", default=5.0, parse=_seconds)
    driver: str = setting('What runs the proxies: "process" or "docker".', default="process", parse=_driver)
    isolation: Isolation = setting(
        'How a container is cut off: "socket" (no network) or "network" (an internal one of its own).',
        default=Isolation.SOCKET,
        parse=_isolation,
    )
    docker: str = setting("Where the engine listens.", default="unix:///var/run/docker.sock", parse=_engine)
    image: str = setting(
        "Image of the proxies; it must be in the engine, nothing is ever pulled.",
        default=IMAGE,
        parse=_image,
    )
    sockets: str = setting(
        "Folder `proxies` of the run folder as the engine's host sees it, or the name of the volume that it is; "
        "empty when it has the same path there.",
        default="",
        parse=_sockets,
    )
    attach: tuple[str, ...] = setting(
        "With isolation by network: containers that are let into each proxy's network, nginx's and the manager's: "
        "names, or PROJECT/SERVICE for all of a Compose service, now and later; separated by commas.",
        default=(),
        parse=_containers,
    )
    subnets: IPv4Network = setting(
        "With isolation by network: where the proxies' networks of 16 addresses are taken from.",
        default=POOL,
        parse=_subnets,
    )
    container_memory: int = setting(
        "Bytes of memory of a container, swap included.", default=_LIMITS.memory, parse=_whole(16 * 1024**2)
    )
    container_cpus: float = setting("Processors of a container.", default=_LIMITS.cpus, parse=_cpus)
    container_pids: int = setting("Processes and threads of a container.", default=_LIMITS.pids, parse=_whole(4))
    container_user: int = setting(
        "User and group id of a container; nginx and the manager belong to the group.",
        default=PROXY_USER,
        parse=_whole(1),
    )
    starts_at_once: int = setting(
        "Containers started at the same time: more of them make each slower, and none of them sooner.",
        default=6,
        parse=_whole(1),
    )
    forkserver: tuple[str, ...] = setting(
        "Command of the fork server, its words separated by commas; empty for this program's own.", default=()
    )
    proxy_memory: int = setting("Bytes of address space of a proxy.", default=1024**3, parse=_whole(64 * 1024**2))
    proxy_files: int = setting("Open files of a proxy.", default=4096, parse=_whole(16))
    proxy_processes: int = setting("Further processes or threads of a proxy.", default=0, parse=_whole(0))
    proxy_dumpable: bool = setting("Whether the same user may look into a proxy's memory.", default=True)
    stop_proxies_on_exit: bool = setting("Whether the proxies end with the manager.", default=True)
    standby: bool = setting(
        "Whether to wait while another manager has the run folder, and to take over when it ends; otherwise it ends "
        "with a message.",
        default=False,
    )
    audit_dir: Path | None = setting(HELP_FOLDER + " Without it there is none.", default=None)
    audit_origin: str = setting(HELP_ORIGIN.format("manager"), default="")
    audit_sink: str = setting(HELP_SINK, default="", parse=check_sink)
    audit_sink_token_file: Path | None = setting(HELP_SINK_TOKEN, default=None)
    leash_fd: int | None = setting("Descriptor whose end stops the manager; none by default.", default=None)

    def audit(self) -> AuditConfig:
        """Return the part that the audit log goes by."""
        return AuditConfig(self.audit_dir, self.audit_origin, self.audit_sink, self.audit_sink_token_file)

    def policy(self) -> PolicyConfig:
        """Return the part that the policy goes by."""
        return PolicyConfig(
            warm=self.warm,
            max_instances=self.max_instances,
            idle_timeout=self.idle_timeout,
            start_timeout=self.start_timeout or START_TIMEOUTS[self.driver],
            starts_at_once=self.starts_at_once if self.driver == "docker" else NO_LIMIT,
        )

    def containers(self) -> DockerConfig:
        """Return the part that the Docker driver goes by."""
        return DockerConfig(
            run_dir=self.run_dir,
            url=self.docker,
            image=self.image,
            isolation=self.isolation,
            sockets=self.sockets,
            attach=self.attach,
            subnets=self.subnets,
            limits=ContainerLimits(
                memory=self.container_memory,
                cpus=self.container_cpus,
                pids=self.container_pids,
                open_files=self.proxy_files,
            ),
            user=self.container_user,
            orphan_timeout=self.orphan_timeout,
            drain=max(0.1, self.stop_grace - DRAIN_MARGIN),
        )

    def process(self) -> ProcessConfig:
        """Return the part that the process driver goes by."""
        return ProcessConfig(
            run_dir=self.run_dir,
            forkserver=self.forkserver or FORKSERVER,
            limits=ChildLimits(
                address_space=self.proxy_memory,
                open_files=self.proxy_files,
                processes=self.proxy_processes,
                dumpable=self.proxy_dumpable,
            ),
            orphan_timeout=self.orphan_timeout,
            drain=max(0.1, self.stop_grace - DRAIN_MARGIN),
        )
