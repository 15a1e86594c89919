"""The homes that this computer is paired with, and the highest number of each one's key statements.

A file each in one folder; nothing in them is secret, but nobody else may write them.
"""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cloudtolocalllm.connect.address import ServerAddress
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.keychain import StorageError
from cloudtolocalllm.sealed import base64url
from cloudtolocalllm.sealed.errors import SealedError
from cloudtolocalllm.sealed.fingerprint import FINGERPRINT_BYTES

MAX_HOMES: Final = 32
_SUFFIX: Final = ".json"
_SEQ_SUFFIX: Final = ".seq"
_BRIDGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Home:
    """One pairing."""

    server: str
    """The server's URL, as `ServerAddress.url` spells it."""
    bridge_id: str
    fingerprint: bytes
    """Of the home's identity; pinned."""
    device_id: str
    """Ours there."""
    name: str
    """For people, here."""
    priority: int = 0
    """The lowest comes first."""
    added: float = 0.0
    """Seconds since the epoch."""

    @property
    def id(self) -> str:
        """What tells it from every other here."""
        return sha256(f"{self.server} {self.bridge_id}".encode()).hexdigest()[:16]

    @property
    def secret_name(self) -> str:
        """Under which its device's private key is kept."""
        return f"device {self.device_id}"

    def to_json(self) -> dict[str, Any]:
        """Return it as its file has it."""
        return asdict(self) | {"fingerprint": base64url.encode(self.fingerprint)}


def key_name(server: str) -> str:
    """Return the name under which a server's API key is kept."""
    return f"api key {server}"


class Homes:
    """The folder of homes."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when it is first needed."""
        self._folder = folder

    def load(self) -> list[Home]:
        """Return all of them, by priority, then by age.

        Raises:
            StorageError: A file cannot be read, or is none of a home.
        """
        try:
            paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
            found = [_read(path) for path in paths[:MAX_HOMES]]
        except OSError as error:
            raise StorageError(f"expected to read {self._folder}, got {type(error).__name__}") from None
        return sorted(found, key=lambda home: (home.priority, home.added, home.id))

    def changed(self) -> int:
        """Return a number that is another one when homes were added, changed or removed."""
        with suppress(OSError):
            return hash(tuple(sorted((p.name, p.stat().st_mtime_ns) for p in self._folder.glob(f"*{_SUFFIX}"))))
        return 0

    def save(self, home: Home) -> None:
        """Write a home's file.

        Raises:
            StorageError: It cannot be written, or there are too many.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / (home.id + _SUFFIX)
            if not path.exists() and len(list(self._folder.glob(f"*{_SUFFIX}"))) >= MAX_HOMES:
                raise StorageError(f"expected at most {MAX_HOMES} homes; remove one first")
            files.replace(path, json.dumps(home.to_json(), indent=1).encode())
        except OSError as error:
            raise StorageError(f"expected to write {self._folder}, got {type(error).__name__}") from None

    def remove(self, home: Home, *, forget_seq: bool = False) -> None:
        """Forget a home. The number of its last statement stays, for a later pairing with the same identity.

        Raises:
            StorageError: It cannot be removed.
        """
        try:
            (self._folder / (home.id + _SUFFIX)).unlink(missing_ok=True)
            if forget_seq:
                (self._folder / (home.id + _SEQ_SUFFIX)).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"expected to write {self._folder}, got {type(error).__name__}") from None

    def seen(self, home: Home) -> int:
        """Return the highest number of a statement that was accepted of this home's identity; 0 for none.

        Raises:
            StorageError: It cannot be read, so that nobody knows whether a statement is older than one before.
        """
        path = self._folder / (home.id + _SEQ_SUFFIX)
        try:
            identity, _, number = path.read_text(encoding="ascii").strip().partition(" ")
            found = int(number)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            raise StorageError(f"expected a fingerprint and a number in {path}; pair this home again") from None
        return found if identity == base64url.encode(home.fingerprint) else 0

    def note_seq(self, home: Home, seq: int) -> None:
        """Keep the number of a statement, if it is the highest.

        Raises:
            StorageError: It cannot be written.
        """
        if seq <= self.seen(home):
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = f"{base64url.encode(home.fingerprint)} {seq}\n"
            files.replace(self._folder / (home.id + _SEQ_SUFFIX), text.encode())
        except OSError as error:
            raise StorageError(f"expected to write {self._folder}, got {type(error).__name__}") from None


def find(homes: list[Home], wanted: str) -> Home:
    """Return the home that a person means by its name, its bridge's id, or the number in the list from 1 on.

    Raises:
        StorageError: None is, or several are.
    """
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) <= len(homes):
        return homes[int(wanted) - 1]
    found = [home for home in homes if wanted in (home.bridge_id, home.id)] or [h for h in homes if h.name == wanted]
    if len(found) != 1:
        raise StorageError(f"expected one home by that name, got {len(found)}; see `cloudtolocalllm connect list`")
    return found[0]


def renamed(home: Home, name: str | None, priority: int | None) -> Home:
    """Return a home with another name or priority; None leaves either as it is."""
    return replace(
        home,
        name=home.name if name is None else name,
        priority=home.priority if priority is None else priority,
    )


def _read(path: Path) -> Home:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        home = Home(
            server=ServerAddress.parse(str(value["server"])).url,
            bridge_id=str(value["bridge_id"]),
            fingerprint=base64url.decode(str(value["fingerprint"]), "a fingerprint", FINGERPRINT_BYTES),
            device_id=str(value["device_id"]),
            name=str(value["name"]),
            priority=int(value["priority"]),
            added=float(value["added"]),
        )
    except (ValueError, KeyError, TypeError, SealedError):
        raise StorageError(f"expected a home in {path}; remove the file and pair it again") from None
    if not _BRIDGE_ID.fullmatch(home.bridge_id):
        raise StorageError(f"expected a bridge's id in {path}; remove the file and pair it again")
    return home
