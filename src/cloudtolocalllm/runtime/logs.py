"""Logs: one line an event on stdout; JSON unless it is a terminal; never bodies, tokens, keys or model names."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_LEVELS = logging.getLevelNamesMapping()
_PICOWS = logging.getLogger("picows")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `extra` members become members."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        value: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)


class TerminalFormatter(logging.Formatter):
    """For people: time, level, service, event, members."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        members = "".join(f" {key}={value}" for key, value in _extra(record).items())
        text = f"{at} {record.levelname.lower():7} {self._service:8} {record.getMessage()}{members}"
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def configure(service: str, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of this process to one stream.

    Args:
        service: The name in each line.
        level: The least severity shown.
        stream: None for stdout.
    """
    use(handler_of(service, stream or sys.stdout), level)


def handler_of(service: str, stream: TextIO) -> logging.Handler:
    """Return what writes a service's lines to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TerminalFormatter(service) if stream.isatty() else JsonFormatter(service))
    return handler


def use(handler: logging.Handler, level: str) -> None:
    """Send all logs of this process to one handler."""
    _set_level(_PICOWS, "WARNING")  # it tells each connection's socket options at INFO
    logging.root.handlers[:] = [handler]
    _set_level(logging.root, level)


def _set_level(logger: logging.Logger, level: str) -> None:
    if logger.level != _LEVELS.get(level):  # setting it empties the cache of every logger
        logger.setLevel(level)
