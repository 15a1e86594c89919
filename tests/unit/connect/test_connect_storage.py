"""What is kept: homes, numbers of statements, secrets."""

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.sealed_parts import DEVICE, PINNED

from cloudtolocalllm.connect.homes import MAX_HOMES, Home, Homes, find, renamed
from cloudtolocalllm.connect.pairing import clean_name, export_key, import_key
from cloudtolocalllm.connect.vault import SERVICE, BothVaults, FileVault, open_vault
from cloudtolocalllm.runtime.keychain import Keychain, StorageError

HOME = Home("https://app.test", "home", PINNED, "device", "Desktop", 1, 5.0)


class Chain:
    """A keychain in memory."""

    place = "a keychain"

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.locked = False

    def get(self, name: str) -> str | None:
        self._check()
        return self.kept.get(name)

    def put(self, name: str, secret: str) -> None:
        self._check()
        self.kept[name] = secret

    def remove(self, name: str) -> None:
        self._check()
        self.kept.pop(name, None)

    def _check(self) -> None:
        if self.locked:
            raise StorageError("the keychain is locked")


def test_homes_come_back_by_priority(tmp_path: Path) -> None:
    homes = Homes(tmp_path / "homes")
    assert homes.load() == []
    first = replace(HOME, bridge_id="other", priority=0)
    homes.save(HOME)
    homes.save(first)
    assert homes.load() == [first, HOME]
    homes.remove(first)
    homes.remove(first)
    assert homes.load() == [HOME]


def test_changes_show(tmp_path: Path) -> None:
    homes = Homes(tmp_path / "homes")
    before = homes.changed()
    homes.save(HOME)
    after = homes.changed()
    homes.note_seq(HOME, 5)
    assert before != after == homes.changed()  # a new number is no change of the homes


def test_there_is_a_bound(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    for number in range(MAX_HOMES):
        homes.save(replace(HOME, bridge_id=f"home{number}"))
    with pytest.raises(StorageError, match=str(MAX_HOMES)):
        homes.save(HOME)
    homes.save(replace(HOME, bridge_id="home1", name="renamed"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"server":"x"}', "\xff"])
def test_a_damaged_file_is_told(text: str, tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    homes.save(HOME)
    next(tmp_path.glob("*.json")).write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match="pair it again"):
        homes.load()


def test_numbers_only_rise(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    assert homes.seen(HOME) == 0
    homes.note_seq(HOME, 7)
    homes.note_seq(HOME, 6)
    assert homes.seen(HOME) == 7
    homes.save(HOME)
    homes.remove(HOME)
    assert homes.seen(HOME) == 7  # so that taking it out and in again forgets nothing


def test_another_identity_has_its_own_numbers(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    homes.note_seq(HOME, 7)
    assert homes.seen(replace(HOME, fingerprint=bytes(32))) == 0


def test_a_damaged_number_is_not_taken_for_none(tmp_path: Path) -> None:
    homes = Homes(tmp_path)
    homes.note_seq(HOME, 7)
    next(tmp_path.glob("*.seq")).write_text("")
    with pytest.raises(StorageError, match="pair this home again"):
        homes.seen(HOME)


def test_homes_are_found_as_people_name_them() -> None:
    other = replace(HOME, bridge_id="b2", name="Laptop")
    homes = [HOME, other]
    assert find(homes, "2") == other
    assert find(homes, "b2") == other
    assert find(homes, "Desktop") == HOME
    for wrong in ("3", "nobody", "0"):
        with pytest.raises(StorageError, match="connect list"):
            find(homes, wrong)
    with pytest.raises(StorageError, match="got 2"):
        find([HOME, replace(other, name="Desktop")], "Desktop")


def test_renaming() -> None:
    assert renamed(HOME, None, 5) == replace(HOME, priority=5)
    assert renamed(HOME, "x", None) == replace(HOME, name="x")


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_files_of_secrets_are_private(tmp_path: Path) -> None:
    vault = FileVault(tmp_path / "keys")
    assert vault.get("a") is None
    vault.put("a", "secret")
    vault.put("a", "other")
    assert vault.get("a") == "other"
    (path,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    vault.remove("a")
    vault.remove("a")
    assert vault.get("a") is None


def test_the_keychain_is_preferred_and_files_catch_what_it_refuses(tmp_path: Path) -> None:
    chain = Chain()
    vault = BothVaults(chain, FileVault(tmp_path))
    vault.put("a", "one")
    assert chain.kept == {"a": "one"}
    assert vault.place == "a keychain"
    chain.locked = True
    vault.put("b", "two")
    assert vault.get("b") == "two"
    assert vault.place == str(tmp_path)
    chain.locked = False
    vault.put("b", "three")  # it goes where it belongs, and the file is gone
    assert chain.kept["b"] == "three"
    assert list(tmp_path.iterdir()) == []
    vault.remove("a")
    assert vault.get("a") is None


def test_a_system_without_a_keychain_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backends.fail import Keyring

    monkeypatch.setattr(keyring, "get_keyring", Keyring)
    with pytest.raises(StorageError, match="no keychain"):
        Keychain(SERVICE)
    vault, sentence = open_vault(tmp_path, use_keyring=True)
    assert isinstance(vault, FileVault)
    assert str(tmp_path) in sentence
    assert open_vault(tmp_path, use_keyring=False)[1] == ""


def test_the_keychain_by_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.errors import KeyringLocked

    class Memory(KeyringBackend):
        priority = 5
        kept: dict[tuple[str, str], str] = {}
        locked = False
        broken = False

        def __init__(self) -> None:
            """Need nothing."""

        def get_password(self, service: str, username: str) -> str | None:
            if self.locked:
                raise KeyringLocked
            if self.broken:
                raise OSError("what the system says")
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    backend = Memory()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    vault = Keychain(SERVICE)
    vault.put("a", "secret")
    assert vault.get("a") == "secret"
    assert list(backend.kept) == [("cloudtolocalllm connect", "a")]
    vault.remove("a")
    vault.remove("a")
    assert vault.get("a") is None
    backend.locked = True
    with pytest.raises(StorageError, match="KeyringLocked"):
        vault.get("a")
    backend.locked, backend.broken = False, True
    with pytest.raises(StorageError, match="OSError"):  # not all that is raised is the library's
        vault.get("a")


def test_a_devices_key_comes_back() -> None:
    key = import_key(export_key(DEVICE))
    assert key.private_numbers() == DEVICE.private_numbers()
    other = ec.generate_private_key(ec.SECP384R1())
    for wrong in ("", "{}", '{"pkcs8":"AAAA"}', export_key(other)):
        with pytest.raises(StorageError, match="pair this home again"):
            import_key(wrong)


def test_names_are_made_fit() -> None:
    assert clean_name("  a\tb\x1b  ") == "a b"
    assert clean_name("") == "computer"
    assert len(clean_name("x" * 99)) == 64
