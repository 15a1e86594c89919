"""Commands about the home store."""

import argparse
import sys
from pathlib import Path

from cloudtolocalllm.bridge.store import backup
from cloudtolocalllm.bridge.store.database import home_path
from cloudtolocalllm.bridge.store.errors import StoreError
from cloudtolocalllm.bridge.store.key_place import SETTING
from cloudtolocalllm.runtime.settings import environment

_CREDENTIAL = "credential.json"
_SUFFIX = ".home.db"


def home_backup(options: argparse.Namespace) -> int:
    """Copy the store into one file and print its name."""
    try:
        path = _store_of(options.data_dir.absolute())
        made = backup.backup(path, options.file and options.file.absolute(), place=environment().get(SETTING, ""))
    except StoreError as error:
        return _fail(error)
    print(made)
    return 0


def home_restore(options: argparse.Namespace) -> int:
    """Put a back-up in the store's place."""
    try:
        path = _store_of(options.data_dir.absolute())
        before = backup.restore(
            path, options.file.absolute(), place=environment().get(SETTING, ""), source_place=options.key or ""
        )
    except StoreError as error:
        return _fail(error)
    if before is not None:
        sys.stderr.write(f"The store that was there is now {before}.\n")
    sys.stderr.write("Devices removed and keys revoked since that back-up stay so. Start the bridge again.\n")
    return 0


def _store_of(folder: Path) -> Path:
    """Return the store in a bridge's folder.

    Raises:
        StoreError: There are several.
    """
    found = sorted(folder.glob(f"*{_SUFFIX}")) or [
        home_path(file) for file in sorted(folder.glob("*.json")) if file.name != "processes.json"
    ]  # fmt: skip
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise StoreError(f"expected one home store in {folder}, got {names}: this machine is paired with several "
                         "servers; name a folder with one of them by --data-dir")  # fmt: skip
    return found[0] if found else home_path(folder / _CREDENTIAL)


def _fail(reason: object) -> int:
    sys.stderr.write(f"cloudtolocalllm: {reason}\n")
    return 1
