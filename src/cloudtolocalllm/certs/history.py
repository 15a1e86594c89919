"""The attempts at a certificate authority on disk, so that a process that crashes over and over asks no more."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudtolocalllm.certs.policy import MAX_RECORDS, Attempt, Ledger, Outcome, lost
from cloudtolocalllm.runtime import files

log = logging.getLogger(__name__)

MAX_BYTES = 2_000_000
VERSION = 1


def load(path: Path, names: Sequence[str], now: float) -> Ledger:
    """Return the history; what cannot be read is put aside and counts as the hour's attempts used up.

    Args:
        path: Its file.
        names: What the certificate is for.
        now: Seconds since the epoch.

    Raises:
        OSError: The file is there and cannot be opened, or what stands for it cannot be written.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES)  # of a longer one the rest is missing, which is damage
        return _parsed(json.loads(text)).clamped(now)
    except FileNotFoundError:
        return Ledger()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        path.replace(path.with_name(f"{path.name}.damaged"))
        log.exception(
            "the history of attempts is damaged and was put aside; the next attempt is made in an hour",
            extra={"path": str(path)},
        )
        ledger = lost(names, now)
        save(path, ledger)
        return ledger


def save(path: Path, ledger: Ledger) -> None:
    """Write the history.

    Raises:
        OSError: It could not be written; then the authority must not be asked.
    """
    value = {
        "version": VERSION,
        "streak": ledger.streak,
        "last_issued": ledger.last_issued,
        "issued": ledger.issued,
        "failed": ledger.failed,
        "attempts": [
            {"begun": a.begun, "names": a.names, "outcome": a.outcome.value, "jitter": a.jitter, "plan": a.plan}
            for a in ledger.attempts
        ],
    }
    files.replace(path, json.dumps(value).encode())


def _parsed(value: Any) -> Ledger:
    if value["version"] != VERSION or not isinstance(value["attempts"], list):
        raise ValueError
    attempts = tuple(
        Attempt(
            _finite(a["begun"]),
            tuple(str(name) for name in a["names"]),
            Outcome(a["outcome"]),
            min(1.0, max(0.0, _finite(a["jitter"]))),
            str(a["plan"]),
        )
        for a in value["attempts"][-MAX_RECORDS:]
    )
    last = value["last_issued"]
    return Ledger(
        tuple(sorted(attempts, key=lambda a: a.begun)),
        int(value["streak"]),
        None if last is None else _finite(last),
        int(value["issued"]),
        int(value["failed"]),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
