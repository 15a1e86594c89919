"""What the manager writes of its containers: keys and owners, which no label may or can say."""

import json
import secrets
from pathlib import Path
from typing import Any

from cloudtolocalllm.manager.drivers.base import DriverError, InstanceSpec
from cloudtolocalllm.manager.drivers.docker.spec import check, is_instance
from cloudtolocalllm.runtime import files

SUFFIX = ".json"
IDENTITY = "manager-id"


class Records:
    """One file an instance, mode 0600, in a folder that the manager alone can enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identity(self) -> str:
        """Return this manager's id, drawn when it first ran: what is labelled with it is this folder's.

        Raises:
            DriverError: It cannot be read or written.
        """
        path = self._folder / IDENTITY
        try:
            files.create(path, secrets.token_hex(8).encode())
            return path.read_text()
        except OSError as error:
            raise DriverError(f"the manager's id cannot be kept: {error.strerror}") from error

    def write(self, spec: InstanceSpec) -> None:
        """Write down an instance, whole or not at all.

        Raises:
            DriverError: It cannot be written: the disk may be full.
        """
        value = {"id": spec.id, "user": spec.user, "key": spec.key, "created": spec.created}
        try:
            files.replace(self._path(spec.id), json.dumps(value).encode())
        except OSError as error:
            raise DriverError(f"the proxy's record cannot be written: {error.strerror}") from error

    def read(self, instance: str) -> InstanceSpec | None:
        """Return what was written of an instance; None when there is nothing, or nothing of use."""
        try:
            value: dict[str, Any] = json.loads(self._path(instance).read_bytes())
            user = value["user"]
            spec = InstanceSpec(
                str(value["id"]), None if user is None else str(user), str(value["key"]), float(value["created"])
            )
            check(spec)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return spec if spec.id == instance else None

    def remove(self, instance: str) -> None:
        """Forget an instance.

        Raises:
            DriverError: Its file cannot be removed.
        """
        try:
            self._path(instance).unlink(missing_ok=True)
        except OSError as error:
            raise DriverError(f"the proxy's record cannot be removed: {error.strerror}") from error

    def ids(self) -> set[str]:
        """Return the instances of which something is written."""
        return {path.stem for path in self._folder.glob("px-*" + SUFFIX) if is_instance(path.stem)}

    def _path(self, instance: str) -> Path:
        return self._folder / (instance + SUFFIX)
