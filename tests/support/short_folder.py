"""A folder with a short path: that of a Unix socket has at most 107 bytes."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder that others may look into, as containers' users must, and remove it with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="c2l-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
