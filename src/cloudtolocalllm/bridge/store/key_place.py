"""Where the key of an encrypted store lies, and the note beside the store that tells.

A place is `keyring:ENTRY`, an entry of the system's keychain, or `file:PATH`, a file that its owner alone can read.
The note, `NAME.home.key-place`, has a place a line; there is none beside a store in the clear. While a store is
encrypted, decrypted or given another key, the note has two lines: what it becomes, and what it was (`clear` is no
key), so that whichever file is there after a power cut can be opened.
"""

import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from cloudtolocalllm.bridge.store.cipher import KEY_BYTES, StoreKey
from cloudtolocalllm.bridge.store.errors import StoreKeyError
from cloudtolocalllm.runtime import files
from cloudtolocalllm.runtime.keychain import Keychain, StorageError

SERVICE: Final = "cloudtolocalllm home store"
"""Under which a keychain shows the keys."""
KEYRING: Final = "keyring"
SETTING: Final = "C2L_BRIDGE_STORE_KEY"
"""The setting that says where the key lies, if the note does not."""
_ENTRY: Final = "keyring:"
_FILE: Final = "file:"
_CLEAR: Final = "clear"
_MOST: Final = 1024
"""Bytes of a key's file that are read; it has 65."""


def parsed(text: str) -> str:
    """Return a place as people give it: `keyring`, `keyring:ENTRY`, or `file:` and a path.

    Raises:
        ValueError: It is neither.
    """
    if text == KEYRING or (text.startswith(_ENTRY) and text != _ENTRY and text.isprintable()):
        return text
    path = text.removeprefix(_FILE)
    if path == text or not Path(path).is_absolute():
        raise ValueError("expected keyring, or file: and an absolute path, such as file:/run/secrets/store-key")
    return text


def note_path(store: Path) -> Path:
    """Return where the note of a store is."""
    return store.with_suffix(".key-place")


def read_note(store: Path) -> tuple[str, ...]:
    """Return the lines of a store's note; none for a store in the clear.

    Raises:
        StoreKeyError: It cannot be read, or says something else.
    """
    path = note_path(store)
    try:
        lines = tuple(path.read_text(encoding="utf-8").split("\n"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeError) as error:
        raise StoreKeyError(f"expected to read {path}, got {type(error).__name__}; see its owner and mode") from None
    places = tuple(line for line in lines if line)
    try:
        for place in places:
            if place != _CLEAR:
                parsed(place)
    except ValueError as error:
        raise StoreKeyError(f"{error}, in each line of {path}") from None
    return places


def write_note(store: Path, *keys: StoreKey | None) -> None:
    """Note which keys a store has or had, the newest first; None for none.

    Raises:
        OSError: It cannot be written.
    """
    if keys == (None,):
        note_path(store).unlink(missing_ok=True)
        files.sync_folder(store.parent)
        return
    text = "".join(f"{_CLEAR if key is None else key.place}\n" for key in keys)
    files.replace(note_path(store), text.encode())


def keys_of(store: Path, place: str = "") -> tuple[StoreKey | None, ...]:
    """Return the keys of which one opens a store, the likeliest first; (None,) for a store in the clear.

    Args:
        store: Its file, whether there is one yet or not.
        place: Where the key lies, if the note does not tell; the setting. "" for where the note says.

    Raises:
        StoreKeyError: None can be had, or not safely.
    """
    try:
        place = place and parsed(place)
    except ValueError as error:
        raise StoreKeyError(f"{SETTING}: {error}") from None
    if place.startswith((_FILE, _ENTRY)):
        return (read_key(place),)
    noted = read_note(store)
    if place:
        noted = tuple(each for each in noted if each.startswith(_ENTRY))
        if not noted:
            raise StoreKeyError(
                f"expected a home store whose key is in the keychain, as {SETTING} says, got one of "
                f"which {note_path(store)} does not tell so; encrypt it: cloudtolocalllm bridge encrypt-store --key "
                "keyring"
            )
    found: list[StoreKey | None] = []
    faults: list[StoreKeyError] = []
    for each in noted:
        try:
            found.append(None if each == _CLEAR else read_key(each))
        except StoreKeyError as error:
            faults.append(error)
    if faults and not any(found):
        raise faults[0]
    return tuple(found) or (None,)


def read_key(place: str) -> StoreKey:
    """Return the key that lies in a place.

    Raises:
        StoreKeyError: There is none, or others can read it.
    """
    if place.startswith(_FILE):
        return StoreKey(_read_file(Path(place.removeprefix(_FILE))), place)
    entry = place.removeprefix(_ENTRY)
    try:
        text = Keychain(SERVICE).get(entry)
    except StorageError as error:
        raise StoreKeyError(f"expected the home store's key in the system's keychain: {error}") from None
    if text is None:
        raise StoreKeyError(
            f"expected the home store's key in the system's keychain, got no entry {entry!r} of {SERVICE!r}; is this "
            f"the same user's session? Or say where the key is by {SETTING}=file:PATH"
        )
    return StoreKey(_parse(text, f"the entry {entry!r} of the system's keychain"), place)


def take_key(place: str) -> tuple[StoreKey, bool]:
    """Return the key in a place that a person named, made when there is none, and whether it was made.

    Raises:
        StoreKeyError: It cannot be read or kept there.
    """
    if place == KEYRING:
        entry = secrets.token_hex(8)
        key = StoreKey.new(f"{_ENTRY}{entry}")
        try:
            Keychain(SERVICE).put(entry, key.raw.hex())
        except StorageError as error:
            raise StoreKeyError(f"expected to keep the key in the system's keychain: {error}; name a file for it: "
                                "--key file:PATH") from None  # fmt: skip
        return key, True
    if place.startswith(_ENTRY):
        return read_key(place), False
    path = Path(place.removeprefix(_FILE))
    try:
        made = _make_file(path, f"{StoreKey.new(place).raw.hex()}\n")
    except OSError as error:
        raise StoreKeyError(f"expected to write the key to {path}, got {type(error).__name__}") from None
    return read_key(place), made


def _make_file(path: Path, text: str) -> bool:
    """Write a new file, whole or not at all, and return True; False when there is one."""
    if path.exists():
        return False
    try:
        return files.create(path, text.encode())
    except OSError:  # the file system of a stick has no links, by which that is done
        files.replace(path, text.encode())
        return True


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(_MOST)
    except OSError as error:
        raise StoreKeyError(
            f"expected the home store's key in {path}, got {type(error).__name__}; bring it back there (a stick, a "
            f"secret, a credential), or say where it is by {SETTING}=file:PATH"
        ) from None
    if _others_may_read(state):
        raise StoreKeyError(
            f"expected {path} to be its owner's alone, got mode {stat.S_IMODE(state.st_mode):04o}: others can read "
            f"the home store's key; chmod 600 {path} (for a container's secret: mode 0400 and the bridge's uid)"
        )
    return _parse(content.decode("ascii", "replace"), str(path))


def _others_may_read(state: os.stat_result) -> bool:
    if sys.platform == "win32":
        return False  # it has no such modes; the folder's list of rights decides
    # systemd leaves root the owner of a credential and lets one user in by an ACL, which shows as the group's right.
    allowed = 0o740 if state.st_uid == 0 and os.geteuid() != 0 else 0o700
    return bool(stat.S_IMODE(state.st_mode) & 0o077 & ~allowed)


def _parse(text: str, where: str) -> bytes:
    try:
        raw = bytes.fromhex(text.strip())
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise StoreKeyError(
            f"expected the home store's key in {where}, {KEY_BYTES} bytes as {2 * KEY_BYTES} hexadecimal digits "
            "(openssl rand -hex 32), got something else"
        )
    return raw
