"""Facts about processes from /proc (Linux)."""

import os


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None when there is none with this id.

    Together with the id it names one process for good: ids are reused, pairs are not. A zombie counts as no process.
    """
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            stat = os.read(file, 4096)
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name (field 2) is in parentheses and may itself contain blanks and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])
