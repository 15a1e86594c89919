"""Where the key of an encrypted store lies: found, missing, wrong, or not kept safely."""

import builtins
import os
import sys
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.keys import KeyList, KeyListError
from cloudtolocalllm.bridge.store import cipher, conversations, database, encryption, key_place
from cloudtolocalllm.bridge.store.errors import StoreDamagedError, StoreKeyError
from cloudtolocalllm.runtime.clock import SystemClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "credential.home.db"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'store-key'}"


class Memory(KeyringBackend):
    priority = 5

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()
    monkeypatch.setattr(keyring, "get_keyring", lambda: made)
    return made


def filled(path: Path) -> bytes:
    store = DirectStore(path)
    store(conversations.create, "title")
    store.close()
    return path.read_bytes()


def refused(path: Path, expected: str, place: str = "") -> None:
    """A store is neither opened, nor touched, nor replaced by an empty one."""
    before = path.read_bytes()
    with pytest.raises(StoreKeyError, match=expected):
        database.connect(path, place=place)
    with pytest.raises(StoreKeyError, match=expected):
        database.inspect(path, place)
    with pytest.raises(KeyListError, match=expected):
        KeyList(path, SystemClock(), place=place)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*damaged*"))


def test_a_made_key_is_by_chance_and_its_owners_alone(path: Path, place: str, tmp_path: Path) -> None:
    assert encryption.encrypt(path, place).made
    assert (tmp_path / "store-key").stat().st_mode & 0o777 == 0o600
    key, other = key_place.read_key(place), cipher.StoreKey.new(place)
    assert len(key.raw) == len(other.raw) == 32
    assert key.raw != other.raw
    assert key.raw.hex() not in repr(key)
    assert key_place.note_path(path).read_text() == f"{place}\n"
    assert key_place.note_path(path).stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_there_is_taken(path: Path, place: str, tmp_path: Path) -> None:
    (tmp_path / "store-key").write_text("ab" * 32)
    (tmp_path / "store-key").chmod(0o400)
    assert not encryption.encrypt(path, place).made
    filled(path)
    assert (tmp_path / "store-key").read_text() == "ab" * 32


def test_a_stick_without_links_takes_a_key(path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: object, target: object) -> None:
        raise PermissionError("FAT has none")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        key, made = key_place.take_key(place)
    assert made
    assert key_place.take_key(place) == (key, False)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_key_that_others_can_read_is_refused(path: Path, place: str, tmp_path: Path, mode: int) -> None:
    encryption.encrypt(path, place)
    filled(path)
    (tmp_path / "store-key").chmod(mode)
    refused(path, f"its owner's alone, got mode {mode:04o}.*chmod 600")
    (tmp_path / "store-key").chmod(0o600)
    database.connect(path).close()


@pytest.mark.parametrize(("owner", "mode", "refused"), [
    (0, 0o400, False), (0, 0o440, False), (0, 0o444, True), (0, 0o460, True),
    (1000, 0o600, False), (1000, 0o640, True),
])  # fmt: skip
def test_a_credential_that_root_lets_one_user_read_is_taken(
    owner: int, mode: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ACL shows as the group's right; for root itself there is no need of one."""
    state = os.stat_result((mode, 0, 0, 1, owner, 0, 65, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert key_place._others_may_read(state) == refused
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert key_place._others_may_read(state) == (refused or mode == 0o440)


def test_a_missing_key_says_where_it_was(path: Path, place: str, tmp_path: Path) -> None:
    encryption.encrypt(path, place)
    filled(path)
    key = (tmp_path / "store-key").rename(tmp_path / "elsewhere")
    refused(path, "expected the home store's key in .*store-key, got FileNotFoundError; .*C2L_BRIDGE_STORE_KEY=file:")
    database.connect(path, place=f"file:{key}").close()


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "xy" * 32, "\x00" * 64, "a" * 5000])
def test_what_is_no_key_says_what_one_is(path: Path, place: str, tmp_path: Path, content: str) -> None:
    encryption.encrypt(path, place)
    filled(path)
    (tmp_path / "store-key").write_text(content)
    refused(path, "32 bytes as 64 hexadecimal digits")


def test_another_key_does_not_begin_an_empty_store(path: Path, place: str, tmp_path: Path) -> None:
    encryption.encrypt(path, place)
    filled(path)
    (tmp_path / "store-key").write_text("ab" * 32)
    refused(path, "expected the key of .* in .*, got another one: bring back the right one")


def test_a_lost_note_does_not_begin_an_empty_store(path: Path, place: str) -> None:
    encryption.encrypt(path, place)
    filled(path)
    key_place.note_path(path).unlink()
    refused(path, "expected to know where the key of .* lies")
    database.connect(path, place=place).close()


def test_a_store_in_the_clear_is_refused_where_an_encrypted_one_is_expected(path: Path, place: str) -> None:
    assert b"title" in filled(path)
    key_place.take_key(place)
    refused(path, "to be encrypted, with the key in .*, got one in the clear; encrypt it", place)
    refused(path, "encrypt-store --key keyring", "keyring")
    refused(path, "C2L_BRIDGE_STORE_KEY: expected keyring, or file:", "elsewhere")
    database.connect(path).close()


def test_a_store_that_is_made_where_one_is_expected_is_encrypted(path: Path, place: str) -> None:
    with pytest.raises(StoreKeyError, match="got FileNotFoundError"):
        database.connect(path, place=place)
    assert not path.exists()
    key_place.take_key(place)
    database.connect(path, place=place).close()
    assert b"title" not in filled(path)
    assert not path.read_bytes().startswith(b"SQLite")


def test_what_cannot_be_encrypted_is_damaged(path: Path, place: str) -> None:
    encryption.encrypt(path, place)
    filled(path)
    for content in (b"", b"x" * 8192, bytes(8192)):
        path.write_bytes(content)
        with pytest.raises(StoreDamagedError):
            database.connect(path)
    assert len(list(path.parent.glob("*.damaged-*"))) == 3


def test_without_the_package_it_says_which(path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encryption.encrypt(path, place)
    filled(path)
    real = builtins.__import__

    def importing(name: str, *values: Any, **named: Any) -> Any:
        if name.startswith("sqlcipher3"):
            raise ImportError(name)
        return real(name, *values, **named)

    for name in [name for name in sys.modules if "sqlcipher" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("cloudtolocalllm.bridge.store.sqlcipher")
    monkeypatch.setattr(builtins, "__import__", importing)
    refused(path, r"expected the package sqlcipher3.*pip install 'cloudtolocalllm\[encryption\]'")
    clear = path.with_name("clear.home.db")
    filled(clear)  # needs it not
    with pytest.raises(StoreKeyError, match="sqlcipher3"):
        encryption.encrypt(clear, place)


def test_the_keychain_keeps_it(path: Path, chain: Memory) -> None:
    done = encryption.encrypt(path, "keyring")
    ((service, entry),) = chain.kept
    assert service == "cloudtolocalllm home store"
    assert done.place == f"keyring:{entry}"
    filled(path)
    database.connect(path, place="keyring").close()
    chain.locked = True
    refused(path, "the keychain refuses .KeyringLocked.; is it locked")
    chain.locked = False
    chain.kept.clear()
    refused(path, "got no entry .*same user's session")


@pytest.mark.parametrize("text", ["", "key", "file:", "file:key", "keyring:\n", "/key", "file"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected keyring, or file:"):
        key_place.parsed(text)


def test_a_spoilt_note_says_so(path: Path, place: str) -> None:
    encryption.encrypt(path, place)
    filled(path)
    key_place.note_path(path).write_text("somewhere\n")
    refused(path, "expected keyring, or file: .*, in each line of .*key-place")
