"""Joins the parts for a service: opens its log, tells its start and its settings, and closes it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from cloudtolocalllm.audit.auditor import WINDOW, Auditor
from cloudtolocalllm.audit.config import AuditConfig
from cloudtolocalllm.audit.events import Event
from cloudtolocalllm.audit.log import AuditLog
from cloudtolocalllm.audit.record import Entry, line_of
from cloudtolocalllm.audit.sinks import SinkRunner, parse_sink
from cloudtolocalllm.audit.writer import LogBusyError, Writer
from cloudtolocalllm.runtime.clock import Clock
from cloudtolocalllm.runtime.tasks import TaskSet

log = logging.getLogger(__name__)

REPLICAS = 32
"""Processes that may share a folder's name: `api`, `api-2` and so on, a log each."""


@contextlib.asynccontextmanager
async def auditing(
    config: AuditConfig, *, service: str, clock: Clock, settings: object | None = None
) -> AsyncIterator[Auditor]:
    """Have an audit log while a service runs.

    Args:
        config: Where to.
        service: Its name.
        clock: For records and checkpoints.
        settings: The service's settings; the names of those that are not at their default are recorded.

    Raises:
        LogBusyError: REPLICAS other processes write logs of this name.
        OSError: The log's folder, or the file of the sink's token, cannot be used.
        ValueError: The origin or the sink cannot be one.
    """
    if config.folder is None:
        yield Auditor(None, service=service, clock=clock)
        return
    names, values = _described(settings)
    log_, digest, same = _open(config, service, clock, values)
    auditor = Auditor(log_, service=service, clock=clock)
    auditor.record(Event.SERVICE_STARTED, settings=names, digest=digest)
    if not same:
        auditor.record(Event.CONFIGURATION_CHANGED, settings=names, digest=digest)
    tasks = TaskSet()
    tasks.start(_flush_forever(auditor), "audit flush")
    try:
        yield auditor
    finally:
        await tasks.close()
        auditor.record(Event.SERVICE_STOPPED)
        auditor.close()
        # In a thread, since it waits for the disk; shielded, since a cancelled service's last records count too.
        await asyncio.shield(asyncio.to_thread(log_.close))


def _open(config: AuditConfig, service: str, clock: Clock, values: Sequence[str]) -> tuple[AuditLog, str, bool]:
    assert config.folder is not None  # noqa: S101 - asked by the caller
    token = "" if config.sink_token_file is None else config.sink_token_file.read_text().strip()
    sink = parse_sink(config.sink, token)
    origin = config.origin or f"{socket.gethostname()}/{service}"
    writer = _writer(config.folder, origin, clock.wall())
    digest, same = writer.same_configuration(values)
    first = Event.AUDIT_DAMAGED if writer.damaged else Event.AUDIT_RECOVERED if writer.recovered else None
    if first is not None:
        writer.append([line_of(Entry(first, clock.wall()), uid=f"{writer.size:016x}", service=service)])
    return AuditLog(writer, clock, sinks=() if sink is None else (SinkRunner(sink),)), digest, same


def _writer(folder: Path, origin: str, now: float) -> Writer:
    """Open the log, or one beside it when a replica of this service writes it."""
    for number in range(1, REPLICAS):
        suffix = f"-{number}" if number > 1 else ""
        with contextlib.suppress(LogBusyError):
            return Writer(folder.with_name(folder.name + suffix), origin + suffix, now=now)
    return Writer(folder.with_name(f"{folder.name}-{REPLICAS}"), f"{origin}-{REPLICAS}", now=now)


async def _flush_forever(auditor: Auditor) -> None:
    while True:
        await asyncio.sleep(WINDOW / 4)
        auditor.flush()


def _described(settings: Any) -> tuple[list[str], list[str]]:
    """Return the names of the settings that are not at their default, and all with their values, for the hash."""
    if settings is None:
        return [], []
    names, values = [], []
    for one in fields(settings):
        value = getattr(settings, one.name)
        values.append(f"{one.name}={value!r}")
        if one.default is MISSING or value != one.default:
            names.append(one.name)
    # which descriptor a parent passed, and the like, is no configuration
    return names, [value for value in values if not value.startswith("leash_fd=")]
