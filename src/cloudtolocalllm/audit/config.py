"""What a service's settings say about its audit log."""

from dataclasses import dataclass
from pathlib import Path

HELP_FOLDER = "Folder of this service's audit log, its alone."
HELP_ORIGIN = "Name of this service's audit log, such as example.org/{}; counts when the log is made."
HELP_SINK = (
    "Second place for audit records and checkpoints: file:/PATH, syslog+udp://HOST:PORT, syslog+tcp://HOST:PORT, "
    "syslog+unix:/PATH or https://URL; empty for none."
)
HELP_SINK_TOKEN = "File with the bearer token for an https:// sink."  # noqa: S105 - a help text


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where a service's audit log goes."""

    folder: Path | None
    """None for no log."""
    origin: str = ""
    """Empty for HOSTNAME/SERVICE."""
    sink: str = ""
    sink_token_file: Path | None = None
