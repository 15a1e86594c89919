"""The manager's settings."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.audit.config import HELP_FOLDER, HELP_ORIGIN, HELP_SINK, HELP_SINK_TOKEN, AuditConfig
from cloudtolocalllm.audit.sinks import check_sink
from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.process_spec import ProcessConfig
from cloudtolocalllm.manager.policy import PolicyConfig
from cloudtolocalllm.runtime.forkserver import ChildLimits
from cloudtolocalllm.runtime.settings import setting

DRAIN_MARGIN = 1.0
"""Seconds by which a proxy must be done before the driver ends it by force."""
PREFIX = "C2L_MANAGER_"
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
    if text != "process":
        raise ValueError('expected "process"')
    return text


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the manager is told at its start."""

    service_keys: Path = setting("Folder of the public keys of the services that may call: api.json.")
    run_dir: Path = setting("Folder for the proxies' sockets and records; absolute, and of at most 69 bytes.")
    listen: Endpoint = setting('Where the API listens: "unix:/path" or "host:port".', parse=Endpoint.parse)
    warm: int = setting("Spare proxies kept ready.", default=1, parse=_whole(0))
    max_instances: int = setting("Proxies at most.", default=2000, parse=_whole(1))
    idle_timeout: float = setting("Seconds without a stream after which a proxy ends.", default=600.0, parse=_seconds)
    start_timeout: float = setting("Seconds within which a proxy must be ready.", default=10.0, parse=_seconds)
    poll_interval: float = setting("Seconds between two looks at a proxy.", default=30.0, parse=_seconds)
    orphan_timeout: float = setting(
        "Seconds after which a proxy that no manager looks at ends by itself.", default=300.0, parse=_seconds
    )
    stop_grace: float = setting("Seconds that a proxy has to finish its streams.", default=5.0, parse=_seconds)
    driver: str = setting('What runs the proxies: "process".', default="process", parse=_driver)
    forkserver: tuple[str, ...] = setting(
        "Command of the fork server, its words separated by commas; empty for this program's own.", default=()
    )
    proxy_memory: int = setting("Bytes of address space of a proxy.", default=1024**3, parse=_whole(64 * 1024**2))
    proxy_files: int = setting("Open files of a proxy.", default=4096, parse=_whole(16))
    proxy_processes: int = setting("Further processes or threads of a proxy.", default=0, parse=_whole(0))
    proxy_dumpable: bool = setting("Whether the same user may look into a proxy's memory.", default=True)
    stop_proxies_on_exit: bool = setting("Whether the proxies end with the manager.", default=True)
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
            start_timeout=self.start_timeout,
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
