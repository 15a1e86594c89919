"""The system's own keychain: Keychain, Credential Manager or Secret Service, by the library keyring.

It is optional, and imported only by who uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class StorageError(Exception):
    """What is to be kept cannot be read or written. The text says which file or keychain, and no secret."""


class Keychain:
    """Keeps texts by name. Methods may block: the system may ask a person to unlock it."""

    def __init__(self, service: str) -> None:
        """Use the keychain that the system has.

        Args:
            service: Under which it shows the entries.

        Raises:
            StorageError: It has none that is safe, or the library is not installed.
        """
        try:
            import keyring
        except ImportError:
            raise StorageError("the package keyring is not installed") from None
        self._service = service
        with self._told():
            self._keyring = keyring.get_keyring()
            if self._keyring.priority < 1:
                raise StorageError("this system has no keychain")

    @property
    def place(self) -> str:
        """The keychain's name, for people."""
        return f"the system's keychain ({self._keyring.name})"

    def get(self, name: str) -> str | None:
        """Return a secret."""
        with self._told():
            return self._keyring.get_password(self._service, name)

    def put(self, name: str, secret: str) -> None:
        """Keep a secret, in place of an earlier one."""
        with self._told():
            self._keyring.set_password(self._service, name, secret)
            if self._keyring.get_password(self._service, name) != secret:
                raise StorageError("the keychain did not keep what it was given")

    def remove(self, name: str) -> None:
        """Forget a secret; no effect when there is none."""
        with self._told():
            if self._keyring.get_password(self._service, name) is not None:
                self._keyring.delete_password(self._service, name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:  # a keychain raises its system's own errors, besides the library's
            raise StorageError(f"the keychain refuses ({type(error).__name__}); is it locked?") from None
