"""What processes cost, as the kernel counts it."""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

KILOBYTE, MEGABYTE = 1_000, 1_000_000


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

    Its CPU-time clock counts nanoseconds. /proc/PID/stat counts timer ticks, which charge whole 10 ms to whoever runs
    when one strikes: a process that wakes with the timers, as one that streams does, is charged for others.
    """
    try:
        # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h, as clock_getcpuclockid(3) gives.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


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
