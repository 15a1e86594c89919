"""What can be wrong with the home store, one class a cause."""

from pathlib import Path


class StoreError(Exception):
    """The store cannot do it now; the text says how to mend it."""


class StoreDamagedError(StoreError):
    """The file is damaged."""

    def __init__(self, path: Path, *, backup: Path | None = None) -> None:
        """Say what to do.

        Args:
            path: The damaged file.
            backup: The newest back-up that is known.
        """
        offer = (
            f"restore the newest back-up: cloudtolocalllm home restore {backup}"
            if backup is not None
            else "no back-up was found beside it; give one to: cloudtolocalllm home restore FILE"
        )
        super().__init__(f"the home store is damaged; nothing of it was deleted, it is {path}. To go on, {offer}")
        self.path = path
        self.backup = backup


class StoreVersionError(StoreError):
    """The file is not ours, or a newer version of the program wrote it."""


class StoreInUseError(StoreError):
    """Another process has the file open."""


class StoreFullError(StoreError):
    """There is no room: the disk is full, or the quota is reached."""


class StoreBusyError(StoreError):
    """Too much is asked of it at once, or it took too long."""


class NotHereError(StoreError):
    """There is no such thing."""


class ConflictError(StoreError):
    """It does not fit what is there."""


class TooOldError(StoreError):
    """The changes asked for are not known any more: reload everything."""


class StoreKeyError(StoreError):
    """The key of an encrypted store is missing, another one, or not kept safely; nothing was changed."""
