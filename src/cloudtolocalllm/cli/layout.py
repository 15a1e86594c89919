"""Where `up` keeps what: one data directory, and a folder for sockets whose paths must be short."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.runtime import files

MAX_RUN_DIR = 60
"""Bytes of a folder's path that leave room for `/proxies/px-0123456789abcdef/http.sock` in the 107 of a socket
address (sun_path, unix(7))."""


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the platform's folder for an application's data (XDG Base Directory Specification on Linux)."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "CloudToLocalLLM"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "CloudToLocalLLM"
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "cloudtolocalllm"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked by the process that runs on this directory; tells which one."""
        return self.root / "up.lock"

    @property
    def processes(self) -> Path:
        """The processes that the last start made, so that the next one can wait for what is left of them."""
        return self.root / "processes.json"

    @property
    def cloud(self) -> Path:
        """The API's folder."""
        return self.root / "cloud"

    @property
    def secrets(self) -> Path:
        """The API's keys."""
        return self.cloud / "secrets"

    @property
    def state(self) -> Path:
        """What the cloud remembers."""
        return self.cloud / "state.db"

    @property
    def bridge_credential(self) -> Path:
        """The local bridge's credential."""
        return self.root / "bridge" / "credential.json"

    @property
    def owner_key(self) -> Path:
        """The owner's first API key, in clear, mode 0600, so that `up` can show it at every start."""
        return self.root / "owner.key"

    @property
    def service_keys(self) -> Path:
        """The services' key pairs for calls to each other; the public ones in `public` below."""
        return self.secrets / "services"

    @property
    def audit(self) -> Path:
        """The audit logs, a folder each service."""
        return self.root / "audit"

    @property
    def log(self) -> Path:
        """All parts' logs."""
        return self.root / "logs" / "up.log"

    @property
    def run(self) -> Path:
        """The folder of the sockets: below the data directory, or in the temporary one where that is too long."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) <= MAX_RUN_DIR:
            return inside
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"c2l-{_uid()}-{digest}"

    def make(self) -> None:
        """Make the folders, mode 0700.

        Raises:
            PermissionError: A folder exists and is somebody else's.
        """
        for folder in (self.root, self.cloud, self.bridge_credential.parent, self.log.parent, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                raise PermissionError(f"expected {folder} to be owned by this user; choose another --data-dir")
            folder.chmod(0o700)


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step: readers see the old content or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(path, text.encode())
