"""Where `connect` keeps its secrets: the system's keychain, or files that only their owner can read."""

import contextlib
import logging
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.keychain import Keychain, StorageError

log = logging.getLogger(__name__)

SERVICE: Final = "cloudtolocalllm connect"
"""Under which a keychain shows the entries."""


class Vault(Protocol):
    """Keeps texts by name. Methods may block; StorageError when they fail."""

    @property
    def place(self) -> str:
        """Where that is, for people."""
        ...

    def get(self, name: str) -> str | None:
        """Return a secret."""
        ...

    def put(self, name: str, secret: str) -> None:
        """Keep a secret, in place of an earlier one."""

    def remove(self, name: str) -> None:
        """Forget a secret; no effect when there is none."""


class FileVault:
    """A folder of mode 0700 with a file of mode 0600 for each secret."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when it is first needed."""
        self._folder = folder

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def get(self, name: str) -> str | None:
        """Return a secret."""
        with _told(self._folder):
            try:
                return self._path(name).read_text(encoding="ascii")
            except FileNotFoundError:
                return None

    def put(self, name: str, secret: str) -> None:
        """Keep a secret."""
        with _told(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(self._path(name), secret.encode("ascii"))

    def remove(self, name: str) -> None:
        """Forget a secret."""
        with _told(self._folder):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / sha256(name.encode()).hexdigest()[:32]


class BothVaults:
    """The keychain, and the files of a time when there was none or it refused."""

    def __init__(self, keychain: Vault, folder: Vault) -> None:
        """Keep new secrets in the keychain, where it takes them."""
        self._keychain = keychain
        self._files = folder
        self._fallen = False

    @property
    def place(self) -> str:
        """Where new secrets go."""
        return self._files.place if self._fallen else self._keychain.place

    def get(self, name: str) -> str | None:
        """Return a secret from wherever it is."""
        found = self._files.get(name)
        return found if found is not None else self._keychain.get(name)

    def put(self, name: str, secret: str) -> None:
        """Keep a secret; in a file when the keychain refuses it."""
        try:
            self._keychain.put(name, secret)
        except StorageError as error:
            log.warning("the keychain was not used", extra={"cause": str(error)})
            self._fallen = True
            self._files.put(name, secret)
        else:
            self._files.remove(name)

    def remove(self, name: str) -> None:
        """Forget a secret wherever it is."""
        self._files.remove(name)
        self._keychain.remove(name)


def open_vault(folder: Path, *, use_keyring: bool) -> tuple[Vault, str]:
    """Return where secrets are kept, and a sentence for people when that is not the keychain; else "".

    Args:
        folder: For files.
        use_keyring: False for files in any case.
    """
    kept = FileVault(folder)
    if not use_keyring:
        return kept, ""
    try:
        return BothVaults(Keychain(SERVICE), kept), ""
    except StorageError as error:
        return kept, (
            f"Keys are kept in files in {folder}, readable by you alone, because {error}. "
            "Whoever can read them, or a copy of this disk, is this device."
        )


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        raise StorageError(f"expected to read and write {folder}, got {type(error).__name__}") from None
