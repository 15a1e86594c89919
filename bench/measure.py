"""What processes cost, read from /proc."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes: shared pages count by the share.

    Raises:
        ProcessLookupError: It is gone.
    """
    path = Path(f"/proc/{pid}/smaps_rollup")
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")


def pss_of(pids: Iterable[int]) -> int:
    """Return the sum over the processes that still run."""
    total = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            total += pss(pid)
    return total


def cpu(pid: int) -> float:
    """Return the seconds of processor time, user and system, that a process has used; 0 when it is gone.

    The kernel counts in ticks of 10 ms: measure over seconds.
    """
    try:
        # The name, which may have spaces, ends at the last parenthesis (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


class CpuMeter:
    """Processor time by name, from its making on."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        """Begin.

        Args:
            groups: Process ids by the name under which they are summed.
        """
        self._groups = groups
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {name: sum(cpu(pid) for pid in pids) for name, pids in self._groups.items()}

    def seconds(self) -> dict[str, float]:
        """Return the seconds used since then."""
        now = self._read()
        return {name: now[name] - before for name, before in self._before.items()}
