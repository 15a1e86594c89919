"""One process at a time, by a lock on a file (flock(2)) that the system drops with the process, however it ends.

The standard library only: `deploy/rollout` runs with nothing else.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class HeldError(Exception):
    """Another process holds the lock."""


def take(path: Path) -> int:
    """Take a lock, and return the descriptor that holds it until it is closed.

    Args:
        path: The file, which is made; only its owner can read it.

    Raises:
        HeldError: Another process holds it.
        OSError: The file cannot be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise HeldError(f"another process holds {path}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold a lock for as long as the block runs; see `take`."""
    fd = take(path)
    try:
        yield fd
    finally:
        os.close(fd)
