"""What the process driver asks of the fork server and writes to disk, as pure functions of the settings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtolocalllm.contracts.endpoint import Endpoint
from cloudtolocalllm.manager.drivers.base import InstanceSpec
from cloudtolocalllm.runtime.forkserver import ChildLimits, SpawnRequest

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path, without its final NUL (unix(7), sun_path)."""
RECORD = "instance.json"
SOCKET = "http.sock"
FOLDER = "proxies"


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """How the process driver makes proxies."""

    run_dir: Path
    forkserver: tuple[str, ...]
    """The command that starts the fork server; it finds its control connection as its standard input."""
    limits: ChildLimits = field(default_factory=ChildLimits)
    drain: float = 4.0
    """Seconds that a proxy gives its streams when it is told to end."""
    orphan_timeout: float = 300.0
    """Seconds after which a proxy that no manager asks for its stats ends by itself."""

    @property
    def folder(self) -> Path:
        """Where each proxy has its own folder."""
        return self.run_dir / FOLDER


@dataclass(frozen=True, slots=True)
class Record:
    """What `instance.json` says; enough for a later manager to adopt the proxy, or to end it."""

    spec: InstanceSpec
    pid: int
    started: int
    """`processes.start_time` of the pid: whether it is still the same process."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**record_value(self.spec), "pid": self.pid, "started": self.started}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Record":
        """Read what `to_json` wrote.

        Raises:
            KeyError, ValueError, TypeError: It is malformed.
        """
        user = value["user"]
        spec = InstanceSpec(
            id=str(value["id"]),
            user=None if user is None else str(user),
            key=str(value["key"]),
            created=float(value["created"]),
        )
        if len(bytes.fromhex(spec.key)) != 32:
            raise ValueError("expected a key of 64 hex digits")
        return cls(spec=spec, pid=int(value["pid"]), started=int(value["started"]))


def check_run_dir(run_dir: Path) -> None:
    """Check that sockets below this folder can have a name.

    Raises:
        ValueError: The folder's path is relative or too long.
    """
    if not run_dir.is_absolute():
        raise ValueError("expected an absolute path for the run folder, got a relative one")
    length = len(bytes(instance_folder(run_dir / FOLDER, "px-" + "0" * 16) / SOCKET))
    if length > MAX_SOCKET_PATH:
        raise ValueError(
            f"expected a run folder whose sockets' paths have at most {MAX_SOCKET_PATH} bytes, got {length}: "
            "choose a shorter one"
        )


def instance_folder(folder: Path, instance: str) -> Path:
    """Return the folder of one proxy."""
    return folder / instance


def endpoint_of(config: ProcessConfig, instance: str) -> Endpoint:
    """Return where a proxy listens."""
    return Endpoint(path=str(instance_folder(config.folder, instance) / SOCKET))


def record_value(spec: InstanceSpec) -> dict[str, Any]:
    """Return the record without what only the process itself knows."""
    return {"id": spec.id, "user": spec.user, "key": spec.key, "created": spec.created}


def spawn_request(spec: InstanceSpec, config: ProcessConfig) -> SpawnRequest:
    """Return what the fork server is asked for one instance.

    The proxy is not told its user: assertions name the user, and a spare has none yet.
    """
    return SpawnRequest(
        id=spec.id,
        args={
            "instance": spec.id,
            "key": spec.key,
            "listen": str(endpoint_of(config, spec.id)),
            "drain": config.drain,
            "orphan_timeout": config.orphan_timeout,
        },
        limits=config.limits,
        record_path=str(instance_folder(config.folder, spec.id) / RECORD),
        record=record_value(spec),
    )
