"""Files that are written whole or not at all, and are on disk when the call returns.

A draft beside the file is written and flushed, then put in place by one rename or link (rename(2), link(2)), and the
folder is flushed too, without which a power cut may take the name back.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


def replace(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Put a file in place: readers see the old content or the new one.

    Raises:
        OSError: It could not be written; the old file stands.
    """
    with _draft(path, content, mode) as draft:
        draft.replace(path)
    sync_folder(path.parent)


def create(path: Path, content: bytes, *, mode: int = PRIVATE) -> bool:
    """Put a new file in place and return True; return False when another process was faster, whose file stands.

    Raises:
        OSError: It could not be written; there is no file.
    """
    with _draft(path, content, mode) as draft:
        try:
            os.link(draft, path)  # refuses to replace, which rename() would not
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Have a folder's names on disk; fsync(2) of a file alone does not do that."""
    if sys.platform == "win32":
        return  # NTFS keeps its names in a journal, and a folder cannot be opened
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _draft(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            if sys.platform != "win32":
                os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
