"""`cloudtolocalllm certs`: runs the certificate's supervisor, and tells how the certificate stands."""

import argparse
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtolocalllm.certs.acme import RETRY
from cloudtolocalllm.certs.service import StartError, checker
from cloudtolocalllm.certs.settings import PREFIX, CertsSettings
from cloudtolocalllm.certs.status import Status, exposition
from cloudtolocalllm.certs.supervisor import STATUS, folder_of
from cloudtolocalllm.certs.validate import Pair, UnfitError
from cloudtolocalllm.cli.services import run_service
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.clock import SystemClock
from cloudtolocalllm.runtime.settings import SettingsError, environment, load

STALE = 300.0
"""Seconds after which a supervisor that has told nothing is taken for dead; it tells each minute."""


def certs_run(_: argparse.Namespace) -> int:
    """Run the supervisor until it is told to stop."""
    try:
        return run_service("certs")
    except StartError as error:
        return _fail(str(error), 1)


def certs_status(options: argparse.Namespace) -> int:
    """Print how the certificate stands; 1 when it needs somebody, 2 when the settings are wrong."""
    try:
        settings = _settings()
        status = _current(settings)
    except (SettingsError, StartError) as error:
        return _fail(str(error), 2)
    good = status.usable and not status.fault
    if options.json:
        print(json.dumps({**status.to_json(), "good": good}))
    elif options.metrics:
        sys.stdout.write(exposition(status))
    else:
        print("\n".join(_lines(status, settings)))
    return 0 if good else 1


def certs_retry(_: argparse.Namespace) -> int:
    """Ask the supervisor not to wait for the end of a pause."""
    try:
        settings = _settings()
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(settings.state_dir / RETRY, b"")
    except SettingsError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"could not write to the state directory ({error.strerror}): run as the supervisor's user", 1)
    print("asked; the supervisor tries again at its next look, unless the authority's limits forbid it")
    return 0


def certs_check(options: argparse.Namespace) -> int:
    """Tell whether two files could be deployed; 1 when not."""
    try:
        settings = _settings()
        facts = checker(settings, SystemClock())(Pair(_read(options.certificate), _read(options.key)))
    except (SettingsError, StartError, OSError) as error:
        return _fail(str(error), 2)
    except UnfitError as error:
        for fault in error.faults:
            print(f"unfit: {fault}")
        return 1
    print(f"fit: for {', '.join(facts.names)} until {_day(facts.not_after)}, issued by {facts.issuer}")
    for remark in facts.remarks:
        print(f"note: {remark}")
    return 0


def _settings() -> CertsSettings:
    return load(CertsSettings, PREFIX, environment())


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1_000_000)


def _current(settings: CertsSettings) -> Status:
    """Return what the supervisor told last, with the deployed certificate looked at anew."""
    clock = SystemClock()
    told = _told(settings.state_dir / STATUS)
    status = Status(
        name=settings.folder_name,
        mode=settings.mode,
        names=settings.domains,
        at=clock.wall(),
        usable=False,
        fault=_supervisor_fault(told, clock.wall()),
        next_at=told.get("next_at"),
        next_why=str(told.get("next_why", "")),
        last_success=told.get("last_success"),
        issued=int(told.get("issued", 0)),
        failed=int(told.get("failed", 0)),
        failures_in_a_row=int(told.get("failures_in_a_row", 0)),
    )
    deployed = folder_of(settings).read()
    if deployed is None:
        return replace(status, problem="no certificate is deployed yet, or this user may not read it")
    try:
        facts = checker(settings, clock)(deployed.pair)
    except UnfitError as error:
        return replace(status, problem=str(error))
    return replace(
        status,
        usable=True,
        not_before=facts.not_before,
        not_after=facts.not_after,
        serial=facts.serial,
        issuer=facts.issuer,
        remarks=facts.remarks,
    )


def _told(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _supervisor_fault(told: dict[str, Any], now: float) -> str:
    at = told.get("at")
    if not isinstance(at, (int, float)):
        return "the supervisor has told nothing yet: see that `cloudtolocalllm certs run` runs"
    if now - at > STALE:
        return f"the supervisor has told nothing since {_day(at)}: see that `cloudtolocalllm certs run` runs"
    return str(told.get("fault", ""))


def _lines(status: Status, settings: CertsSettings) -> list[str]:
    lines = [f"certificate  {status.name} ({status.mode}) for {', '.join(status.names)}"]
    if status.usable and status.not_after is not None:
        lines.append(f"state        good until {_day(status.not_after)} ({status.days_left:.1f} days)")
        lines.append(f"issuer       {status.issuer or 'itself'}, serial {status.serial}")
    else:
        lines.append(f"state        NOT USABLE: {status.problem}")
    lines += [f"note         {remark}" for remark in status.remarks]
    if status.fault:
        lines.append(f"fault        {status.fault}")
    if status.failures_in_a_row:
        lines.append(f"failures     {status.failures_in_a_row} in a row")
    when = f"{_day(status.next_at)}: " if status.next_at is not None else ""
    lines.append(f"next         {when}{status.next_why or 'not known'}")
    lines.append(f"folder       {settings.deploy_dir / settings.folder_name}")
    return lines


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"cloudtolocalllm certs: {text}\n")
    return status
