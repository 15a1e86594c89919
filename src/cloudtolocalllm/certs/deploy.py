"""Puts a pair where nginx reads it, so that a half-written one is never seen.

```
DIR/NAME/fullchain.pem -> current/fullchain.pem      what nginx's configuration names; these links never change
DIR/NAME/privkey.pem   -> current/privkey.pem
DIR/NAME/current       -> versions/ID                changed by one rename(2): both files at once
DIR/NAME/stamp                                       changed last: whoever watches it reloads nginx
```

A process that opens one file before the rename and the other after it gets a pair that does not match; nginx then
keeps what it has, and the stamp that follows has it read again.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudtolocalllm.certs.validate import Facts, Pair
from cloudtolocalllm.runtime import files

STAMP = "stamp"
FULLCHAIN = "fullchain.pem"
PRIVKEY = "privkey.pem"
VERSIONS_KEPT = 3

_CURRENT = "current"
_VERSIONS = "versions"
_SOURCE = "source.json"
_VERSION = re.compile(r"[0-9]{8,20}-[0-9a-f]{8}", re.ASCII)


class DeployError(Exception):
    """The pair could not be put in place; the old one stands. The text says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is in place."""

    pair: Pair
    source: str
    """What it came from, as given to `put`; empty when nobody noted it."""


class Folder:
    """One certificate's folder."""

    def __init__(self, folder: Path, *, group: int | None = None) -> None:
        """Name a folder.

        Args:
            folder: `DIR/NAME`; made when the first pair comes.
            group: The group id that may read the key, which nginx runs with; None for the owner alone.
        """
        self.path = folder
        self._group = group

    def read(self) -> Deployed | None:
        """Return the pair in place, or None when there is none that can be read."""
        try:
            version = (self.path / _CURRENT).resolve(strict=True)
            pair = Pair((version / FULLCHAIN).read_bytes(), (version / PRIVKEY).read_bytes())
        except OSError:
            return None
        try:
            source = json.loads((version / _SOURCE).read_text())["source"]
        except (OSError, ValueError, KeyError, TypeError):
            source = ""
        return Deployed(pair, str(source))

    def put(self, pair: Pair, facts: Facts, source: str, now: float) -> None:
        """Put a pair in place, which must have been checked.

        Args:
            pair: The two files.
            facts: What they hold.
            source: What it came from.
            now: Seconds since the epoch.

        Raises:
            DeployError: It could not be written.
        """
        try:
            self._put(pair, facts, source, now)
        except OSError as error:
            raise DeployError(
                f"could not write to {self.path} ({error.strerror or error}): give this process's user the folder, "
                "and see that its disk has room"
            ) from error

    def _put(self, pair: Pair, facts: Facts, source: str, now: float) -> None:
        versions = self.path / _VERSIONS
        for folder in (self.path, versions):
            self._make(folder)
        name = f"{int(now)}-{secrets.token_hex(4)}"
        version = versions / name
        self._make(version)
        try:
            self._write(version / FULLCHAIN, pair.fullchain)
            self._write(version / PRIVKEY, pair.privkey)
            self._write(version / _SOURCE, json.dumps({"source": source}).encode())
            files.sync_folder(versions)
            self._link(self.path / _CURRENT, f"{_VERSIONS}/{name}")
        except OSError:
            if not _leads(self.path / _CURRENT, f"{_VERSIONS}/{name}"):  # the rename may have been done
                shutil.rmtree(version, ignore_errors=True)
            raise
        for file in (FULLCHAIN, PRIVKEY):
            if not _leads(self.path / file, f"{_CURRENT}/{file}"):
                self._link(self.path / file, f"{_CURRENT}/{file}")
        self._write_stamp(pair, facts)
        self._forget(versions, name)

    def stamped(self, pair: Pair) -> bool:
        """Return whether the stamp is of this pair: not so when a process died just before it."""
        try:
            return (self.path / STAMP).read_text().startswith(_digest(pair))
        except OSError:
            return False

    def stamp(self, pair: Pair, facts: Facts) -> None:
        """Write the stamp alone, after a death between the pair and it.

        Raises:
            DeployError: It could not be written.
        """
        try:
            self._write_stamp(pair, facts)
        except OSError as error:
            raise DeployError(f"could not write {self.path / STAMP} ({error.strerror or error})") from error

    def _write_stamp(self, pair: Pair, facts: Facts) -> None:
        text = f"{_digest(pair)} serial={facts.serial} not_after={int(facts.not_after)}\n"
        files.replace(self.path / STAMP, text.encode(), mode=files.PUBLIC)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return  # whoever made it decided who may enter
        folder.mkdir(mode=0o700, parents=True)
        if self._group is not None:
            os.chown(folder, -1, self._group)
            folder.chmod(0o750)

    def _write(self, path: Path, content: bytes) -> None:
        files.replace(path, content, mode=files.PRIVATE)
        if self._group is not None:
            os.chown(path, -1, self._group)
            path.chmod(0o640)

    def _link(self, link: Path, target: str) -> None:
        draft = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
        draft.symlink_to(target)
        try:
            draft.replace(link)
        finally:
            draft.unlink(missing_ok=True)
        files.sync_folder(link.parent)

    def _forget(self, versions: Path, current: str) -> None:
        """Remove old versions, but for the last ones, which nginx may be reading."""
        old = sorted(v for v in _names(versions) if _VERSION.fullmatch(v) and v != current)
        for name in old[: max(0, len(old) - (VERSIONS_KEPT - 1))]:
            shutil.rmtree(versions / name, ignore_errors=True)


def _names(folder: Path) -> Sequence[str]:
    return [entry.name for entry in folder.iterdir()]


def _leads(link: Path, target: str) -> bool:
    try:
        return str(link.readlink()) == target
    except OSError:
        return False


def _digest(pair: Pair) -> str:
    # Of the certificates alone: nothing that depends on the key stands in a file that all may read.
    return hashlib.sha256(pair.fullchain).hexdigest()
