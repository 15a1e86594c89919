"""`cloudtolocalllm audit`: check the logs, and show them."""

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtolocalllm.audit.checkpoint import Verifier
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.audit.folder import DamagedError
from cloudtolocalllm.audit.record import Entry, line_of
from cloudtolocalllm.audit.verify import Report, logs_below, records, verify
from cloudtolocalllm.audit.writer import LogBusyError, Writer
from cloudtolocalllm.cli.layout import Layout
from cloudtolocalllm.runtime.clock import SystemClock

MAX_GIVEN = 256 * 1024 * 1024
"""Bytes of a second sink's file that are read."""
UNITS = {"m": 60, "h": 3600, "d": 86_400}

_PERIOD = re.compile(r"(\d{1,6})([mhd])", re.ASCII)


def audit_verify(options: argparse.Namespace) -> int:
    """Check every log, and print what was found; 1 when anything was changed, 2 when there is nothing to check."""
    logs = _logs(options)
    try:
        key = Verifier.parse(options.key) if options.key else None
        given = [_read(Path(path)) for path in options.checkpoint]
    except (OSError, ValueError) as error:
        return _fail(str(error))
    if not logs:
        return _fail(f"expected an audit log in {_place(options)}; name its folder with --log")
    reports = []
    for log in logs:
        report = verify(
            log, key=key if key is not None and (len(logs) == 1 or _is_of(log, key)) else None, given=given
        )
        _print(log, report)
        reports.append(report)
    if given and not any(report.given for report in reports):
        return _fail("the given checkpoints are of none of these logs", 1)
    return 0 if all(report.good for report in reports) else 1


def audit_show(options: argparse.Namespace) -> int:
    """Print the records of every log, each log in order."""
    logs = _logs(options)
    if not logs:
        return _fail(f"expected an audit log in {_place(options)}; name its folder with --log")
    try:
        since = _since(options.since)
    except ValueError as error:
        return _fail(str(error))
    try:
        for log in logs:
            _show(log, since, as_json=options.json)
    except (OSError, DamagedError) as error:
        return _fail(f"{error}; `cloudtolocalllm audit verify` tells more", 1)
    return 0


def note(
    below: Path, event: Event, *, host: str = "localhost", user: str | None = None, about: str | None = None
) -> None:
    """Record what the owner does by command, in a log of the command line's own.

    A log that cannot be written keeps nobody from a command: it is told on stderr.

    Args:
        below: The folder of all logs.
        event: What was done.
        host: Whose log it is, as its checkpoints name it.
        user: Whom it concerns.
        about: The thing that it was done to.
    """
    clock = SystemClock()
    try:
        writer = Writer(below / "cli", f"{host}/cli", now=clock.wall())
        try:
            entry = Entry(event, clock.wall(), user=user, about=about)
            writer.append([line_of(entry, uid=f"{writer.size:016x}", service="cli")])
        finally:
            writer.close(clock.wall())
    except (OSError, LogBusyError) as error:
        sys.stderr.write(f"cloudtolocalllm: the audit log could not be written: {error}\n")


def _logs(options: argparse.Namespace) -> list[Path]:
    return logs_below(_place(options))


def _place(options: argparse.Namespace) -> Path:
    place: Path = options.log or Layout(options.data_dir.absolute()).audit
    return place


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_GIVEN:
        raise ValueError(f"expected a file of checkpoints of at most {MAX_GIVEN} bytes")
    return path.read_text(encoding="utf-8", errors="replace")


def _is_of(log: Path, key: Verifier) -> bool:
    try:
        return (log / "log.vkey").read_text().startswith(f"{key.name}+")
    except OSError:
        return False


def _print(log: Path, report: Report) -> None:
    verdict = "good" if report.good else "CHANGED"
    print(f"{log}: {verdict}: {report.size} records, {report.covered} of them signed for, of {report.origin or '?'}")
    for fault in report.faults:
        print(f"  fault: {fault}")
    for remark in report.notes:
        print(f"  note: {remark}")
    if report.given:
        print(f"  compared with {report.given} checkpoints from elsewhere")


def _since(text: str | None) -> float:
    """Return seconds since the epoch.

    Raises:
        ValueError: It is neither a period nor a date.
    """
    if text is None:
        return 0.0
    if match := _PERIOD.fullmatch(text):
        return SystemClock().wall() - int(match[1]) * UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError('expected --since as a period such as "2h" or "7d", or a date such as 2026-01-31') from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _show(log: Path, since: float, *, as_json: bool) -> None:
    for line in records(log):
        try:
            value: Any = json.loads(line)
            shown = value["time"] / 1000 >= since
            text = line.decode() if as_json else _row(log.name, value)
        except (ValueError, KeyError, TypeError, AttributeError):
            shown, text = True, f"(no record of ours in {log.name})"
        if shown:
            print(text)


def _row(service: str, value: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(value["time"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    members = {
        "reason": value.get("status_code"),
        "user": value.get("actor", {}).get("user", {}).get("uid"),
        value.get("entity", {}).get("type", ""): value.get("entity", {}).get("uid"),
        "from": value.get("src_endpoint", {}).get("uid"),
        "request": value["metadata"].get("correlation_uid"),
        "count": value.get("count"),
        "settings": " ".join(value.get("unmapped", {}).get("settings", [])) or None,
    }
    told = "".join(f" {name}={member}" for name, member in members.items() if member not in (None, "unknown"))
    return f"{at}  {value['severity']:13} {service:8} {value['metadata']['event_code']:22}{told}"


def _fail(text: str, status: int = 2) -> int:
    sys.stderr.write(f"cloudtolocalllm audit: {text}\n")
    return status
