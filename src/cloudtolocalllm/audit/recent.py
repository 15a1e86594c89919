"""The newest records of a service's log and of those beside it, for people: read from the ends of the files."""

import contextlib
import heapq
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtolocalllm.audit import folder as files
from cloudtolocalllm.audit.verify import logs_below

TAIL = 1024 * 1024
"""Bytes that are read of each log, from its end: some 1,500 records."""


@dataclass(frozen=True, slots=True)
class Recent:
    """One record, in short."""

    time: float
    """Seconds since the epoch."""
    event: str
    success: bool
    user: str | None
    """Whom it is about, or else who acted."""
    reason: str | None
    request_id: str | None
    about: str | None
    service: str
    count: int

    @classmethod
    def of(cls, value: dict[str, Any], service: str) -> "Recent":
        """Read a record.

        Raises:
            KeyError: A member is missing.
            TypeError: A member is of another type.
        """
        user = value.get("user", value.get("actor", {}).get("user", {})).get("uid")
        return cls(
            time=value["time"] / 1000,
            event=str(value["metadata"]["event_code"]),
            success=value["status_id"] == 1,
            user=None if user in (None, "unknown") else str(user),
            reason=value.get("status_code"),
            request_id=value["metadata"].get("correlation_uid"),
            about=value.get("entity", {}).get("uid"),
            service=service,
            count=value.get("count", 1),
        )


def recent(folder: Path, limit: int) -> list[Recent]:
    """Return the newest records of all logs directly below a folder, newest first. Blocks for some milliseconds.

    Args:
        folder: The parent of a service's audit folder.
        limit: How many at most.
    """
    found: list[Recent] = []
    for log in logs_below(folder):
        for line in _last_lines(log):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                found.append(Recent.of(json.loads(line), log.name))
    return heapq.nlargest(limit, found, key=lambda one: one.time)


def _last_lines(log: Path) -> list[bytes]:
    left, lines = TAIL, list[bytes]()
    for segment in reversed(files.segments(log)):
        if left <= 0 or not segment.records.exists():
            break
        with segment.records.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - left)
            file.seek(start)
            read = file.read(left).split(b"\n")
        # the first may be half a line, what follows the last newline is none yet
        lines = (read[1:-1] if start else read[:-1]) + lines
        left -= size - start
    return lines
