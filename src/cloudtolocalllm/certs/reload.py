"""Has nginx read a new certificate where no watcher of the stamp does."""

import os
import signal
from pathlib import Path


class ReloadError(Exception):
    """nginx could not be told; the text says why and how to mend it."""


def hang_up(pid_file: Path) -> None:
    """Send SIGHUP to the nginx that a pid file names: it reads its configuration and certificates, and cuts nothing.

    Raises:
        ReloadError: There is none, or it is not nginx.
    """
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        raise ReloadError(f"expected {pid_file} to name a running nginx: start it, or correct the path") from None
    # Process ids are used again: a stale file must not have another program ended.
    if pid <= 1 or name != "nginx":
        raise ReloadError(f"expected {pid_file} to name a running nginx, got another program: remove the stale file")
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise ReloadError(f"could not signal nginx ({error.strerror}): run as its user or as root") from error
