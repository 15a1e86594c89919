"""Folders of instances, and the lock that says whose they are."""

import os
import shutil
from pathlib import Path

from cloudtolocalllm.manager.drivers.base import DriverError
from cloudtolocalllm.runtime import locks

LOCK = ".lock"


class TakenError(DriverError):
    """Another manager has the folder."""


def take(folder: Path, *, mode: int = 0o700, name: str = LOCK) -> int:
    """Make a folder ours, against a second manager that would adopt our proxies; return the lock's descriptor.

    The kernel takes the lock back when this process ends, however it ends.

    Raises:
        TakenError: Another manager has it.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)
    try:
        return locks.take(folder / name)
    except locks.HeldError:
        raise TakenError("expected to be the only manager of this run folder, but another one runs") from None


def make(folder: Path, *, mode: int = 0o700, group: int | None = None) -> None:
    """Make the folder of a new instance.

    Args:
        folder: It must not be there.
        mode: Its permissions, whatever the umask.
        group: The group that it belongs to; None for the process's own.

    Raises:
        DriverError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700)
        if group is not None:
            os.chown(folder, -1, group)
        folder.chmod(mode)
    except OSError as error:
        raise DriverError(f"the proxy's folder cannot be made: {error.strerror}") from error


def remove(folder: Path) -> None:
    """Remove an instance's folder, if it is there.

    Raises:
        DriverError: Something of it is left.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DriverError(f"the proxy's folder cannot be removed: {error.strerror}") from error
