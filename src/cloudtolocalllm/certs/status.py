"""What is told of a certificate: a file for `certs status`, and metrics in Prometheus' text format. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloudtolocalllm.certs.policy import DAY


@dataclass(frozen=True, slots=True)
class Status:
    """One look at the certificate; times in seconds since the epoch."""

    name: str
    mode: str
    names: tuple[str, ...]
    at: float
    """When this was so."""
    usable: bool
    """A fit certificate is deployed."""
    problem: str = ""
    """Why what is deployed is not fit; empty when it is, or when there is none."""
    fault: str = ""
    """What keeps a new one from coming, and how to mend it; empty for nothing."""
    not_before: float | None = None
    not_after: float | None = None
    serial: str = ""
    issuer: str = ""
    remarks: tuple[str, ...] = ()
    next_at: float | None = None
    """When the source acts next; None when it depends on somebody's doing."""
    next_why: str = ""
    last_success: float | None = None
    """When a certificate was issued or deployed last."""
    issued: int = 0
    failed: int = 0
    failures_in_a_row: int = 0

    @property
    def days_left(self) -> float:
        """Days that the deployed certificate holds; 0 when there is none or it is not fit."""
        if not self.usable or self.not_after is None:
            return 0.0
        return max(0.0, (self.not_after - self.at) / DAY)

    def to_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return {**asdict(self), "days_left": round(self.days_left, 3)}


_METRICS = (
    ("usable", "gauge", "1 when a fit certificate is deployed."),
    ("days_left", "gauge", "Days that the deployed certificate holds; 0 when there is none that is fit."),
    ("not_after_timestamp_seconds", "gauge", "When the deployed certificate expires."),
    ("last_success_timestamp_seconds", "gauge", "When a certificate was issued or deployed last."),
    ("next_attempt_timestamp_seconds", "gauge", "When a renewal is tried next."),
    ("issued_total", "counter", "Certificates that the authority issued."),
    ("failures_total", "counter", "Attempts that failed."),
    ("failures_in_a_row", "gauge", "Attempts that failed since the last success."),
    ("fault", "gauge", "1 when something keeps a new certificate from coming."),
    ("checked_timestamp_seconds", "gauge", "When this was written: the supervisor lives when it is recent."),
)


def exposition(status: Status) -> str:
    """Return the metrics (Prometheus' text format 0.0.4)."""
    values: Mapping[str, float | None] = {
        "usable": float(status.usable),
        "days_left": round(status.days_left, 3),
        "not_after_timestamp_seconds": status.not_after,
        "last_success_timestamp_seconds": status.last_success,
        "next_attempt_timestamp_seconds": status.next_at,
        "issued_total": status.issued,
        "failures_total": status.failed,
        "failures_in_a_row": status.failures_in_a_row,
        "fault": float(bool(status.fault)),
        "checked_timestamp_seconds": status.at,
    }
    label = f'{{name="{_escaped(status.name)}"}}'
    lines = []
    for name, kind, text in _METRICS:
        value = values[name]
        if value is not None:
            lines += [f"# HELP c2l_certificate_{name} {text}", f"# TYPE c2l_certificate_{name} {kind}"]
            lines.append(f"c2l_certificate_{name}{label} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
