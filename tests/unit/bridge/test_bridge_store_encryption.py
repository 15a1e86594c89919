"""Encrypting a store, decrypting it, giving it another key; back-ups; and what is on the disk meanwhile."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.home_store import DirectStore

from cloudtolocalllm.bridge.store import (
    attachments,
    backup,
    cipher,
    conversations,
    database,
    encryption,
    key_place,
    messages,
    runs,
)
from cloudtolocalllm.bridge.store.cipher import StoreKey
from cloudtolocalllm.bridge.store.errors import StoreError, StoreInUseError, StoreKeyError
from cloudtolocalllm.bridge.store.lock import StoreLock
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.runs import NewRun, Piece, TextKind
from cloudtolocalllm.bridge.store.search import search

NEEDLES = (b"marmalade", b"quokka", b"zeppelin", b"x-attached-x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "credential.home.db"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'store-key'}"


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"file:{tmp_path / 'other-key'}"


def fill(store: DirectStore) -> None:
    talk = store(conversations.create, "marmalade").id
    for number in range(30):
        note = store(messages.add, talk, NewMessage("user", f"quokka {number} " * 300))
    run = store(runs.begin, NewRun(talk, note.id, "m"))
    store(runs.append, run.id, [Piece(0, TextKind.CONTENT, "zeppelin " * 400)])
    store(attachments.put, b"x-attached-x" * 4000)
    store(conversations.delete, store(conversations.create, "marmalade, deleted").id)


def filled(path: Path) -> Path:
    store = DirectStore(path)
    fill(store)
    store.close()
    return path


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of a store, and see that search finds what is there."""
    store = DirectStore(path)
    names = [name for (name,) in store.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = {name: sorted(store.db.execute(f'SELECT * FROM "{name}"'), key=repr)
            for name in names if not name.startswith(database.TEXT_INDEXES)}  # fmt: skip
    assert [hit.title for hit in store(search, "marmal")] == ["marmalade"]
    assert store(search, "quokka")
    assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert store.db.execute("PRAGMA application_id").fetchone() == (database.APPLICATION_ID,)
    assert store.db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    store.close()
    return rows


def in_the_clear(folder: Path) -> set[bytes]:
    """Return which needles are to be found in any file of a folder."""
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert sum(map(len, files)) > 100_000
    return {needle for needle in NEEDLES if any(needle in file for file in files)}


@pytest.mark.parametrize("kind", ["clear", "encrypted"])
def test_nothing_of_an_encrypted_store_is_in_the_clear_while_it_is_open(path: Path, place: str, kind: str) -> None:
    """The scan finds everything in a store that is not encrypted, so that it can fail."""
    if kind == "encrypted":
        encryption.encrypt(path, place)
    store = DirectStore(path)
    fill(store)
    assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert path.with_name(path.name + "-wal").stat().st_size > 100_000
    expected = set(NEEDLES) if kind == "clear" else set()
    assert in_the_clear(path.parent) == expected
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert in_the_clear(path.parent) == expected
    backup.backup(path)
    store.close()
    assert in_the_clear(path.parent) == expected


def test_sorting_leaves_no_file(path: Path, place: str) -> None:
    encryption.encrypt(path, place)
    with closing(database.connect(path)) as db:
        assert db.execute("PRAGMA temp_store").fetchone() == (2,)
        assert ("TEMP_STORE=0",) not in db.execute("PRAGMA compile_options").fetchall()


def test_there_and_back_nothing_changes(path: Path, place: str, other: str) -> None:
    filled(path)
    before = content(path)
    done = encryption.encrypt(path, place)
    assert done.made
    assert done.place == place
    assert in_the_clear(path.parent) == set()
    assert content(path) == before
    changed = encryption.change_key(path, other)
    assert (changed.place, changed.before) == (other, place)
    assert content(path) == before
    with pytest.raises(StoreKeyError, match="got another one"):
        database.connect(path, place=place)
    assert encryption.decrypt(path).before == other
    assert not key_place.note_path(path).exists()
    assert in_the_clear(path.parent) == set(NEEDLES)
    assert content(path) == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_a_store_goes_on_to_be_written_after_each(path: Path, place: str) -> None:
    filled(path)
    for act in ("encrypt", "decrypt"):
        encryption.encrypt(path, place) if act == "encrypt" else encryption.decrypt(path)
        store = DirectStore(path)
        talk = store(conversations.create, "later")
        assert [hit.title for hit in store(search, "later")] == ["later"]
        store(conversations.delete, talk.id)
        assert store(search, "later") == []
        store.close()


def test_the_key_can_move(path: Path, place: str, other: str, tmp_path: Path) -> None:
    encryption.encrypt(filled(path), place)
    shutil.copy2(tmp_path / "store-key", tmp_path / "other-key")
    before = path.read_bytes()
    assert not encryption.change_key(path, other).made
    assert path.read_bytes() == before
    (tmp_path / "store-key").unlink()
    content(path)


def test_older_copies_in_the_clear_are_told(path: Path, place: str) -> None:
    saved = backup.backup(filled(path))
    damaged = path.with_name(f"{path.name}.damaged-1")
    damaged.write_bytes(b"quokka" * 5000)
    assert encryption.encrypt(path, place).clear == tuple(sorted((saved, damaged)))
    mine = backup.backup(path)
    assert mine not in encryption.clear_copies(path)


@pytest.mark.parametrize("who", ["a bridge", "a command"])
def test_a_store_in_use_is_left_alone(path: Path, place: str, who: str) -> None:
    filled(path)
    lock = StoreLock(path)
    if who == "a bridge":
        lock.acquire()
    with closing(database.connect(path)) as db:
        db.execute("SELECT count(*) FROM keys").fetchone()
        with pytest.raises(StoreInUseError):
            encryption.encrypt(path, place)
    lock.release()
    assert in_the_clear(path.parent) == set(NEEDLES)
    encryption.encrypt(path, place)


def test_what_a_command_writes_meanwhile_is_not_lost(path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    real = encryption.rewrite_into

    def slow(draft: Path, source: Path, key: StoreKey | None, new: StoreKey | None, *, alone: bool) -> None:
        real(draft, source, key, new, alone=alone)
        with closing(database.connect(path)) as db:  # a command that comes and goes
            db.execute("INSERT INTO removed_devices (id, removed) VALUES ('x', 1)")

    monkeypatch.setattr(encryption, "rewrite_into", slow)
    with pytest.raises(StoreInUseError, match="end what does, and try again"):
        encryption.encrypt(path, place)
    assert content(path)["removed_devices"] == [("x", 1.0)]
    assert key_place.read_note(path) == ()


def test_without_room_nothing_is_begun(path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=path.stat().st_size))
    with pytest.raises(StoreError, match=r"MB free on the disk of .*, got .* MB; make room"):
        encryption.encrypt(path, place)
    assert key_place.read_note(path) == ()
    content(path)


def test_acts_that_do_not_fit_are_refused(path: Path, place: str) -> None:
    filled(path)
    with pytest.raises(StoreKeyError, match="to be encrypted, got one in the clear"):
        encryption.decrypt(path)
    with pytest.raises(StoreKeyError, match="got one in the clear"):
        encryption.change_key(path, place)
    encryption.encrypt(path, place)
    with pytest.raises(StoreKeyError, match="got one that is encrypted"):
        encryption.encrypt(path, place)
    with pytest.raises(StoreKeyError, match="another place for the new key"):
        encryption.change_key(path, place)
    content(path)


def test_a_copy_that_lacks_a_row_does_not_take_the_stores_place(
    path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    real = cipher.export

    def lossy(
        source: Path, key: StoreKey | None, target: Path, new: StoreKey | None, *rest: tuple[str, ...], alone: bool
    ) -> None:
        real(source, key, target, new, *rest, alone=alone)
        with closing(database.raw(target, new)) as db:
            db.execute("DELETE FROM attachments")

    monkeypatch.setattr(cipher, "export", lossy)
    before = content(path)
    with pytest.raises(StoreError, match="expected a sound copy"):
        encryption.encrypt(path, place)
    assert content(path) == before
    assert key_place.read_note(path) == ()


# --- back-ups -----------------------------------------------------------------------------------------------------


def test_a_backup_needs_the_key_that_it_was_made_with(path: Path, place: str, other: str, tmp_path: Path) -> None:
    encryption.encrypt(filled(path), place)
    before = content(path)
    saved = backup.backup(path, tmp_path / "saved.db")
    assert not any(needle in saved.read_bytes() for needle in NEEDLES)
    encryption.change_key(path, other)
    with pytest.raises(StoreKeyError, match="home restore --key file:PATH FILE"):
        backup.restore(path, saved)
    backup.restore(path, saved, source_place=place)
    assert key_place.read_note(path) == (other,)
    assert content(path)["messages"] == before["messages"]
    with pytest.raises(StoreKeyError):
        database.connect(path, place=place)


def test_a_backup_in_the_clear_is_restored_encrypted(path: Path, place: str, tmp_path: Path) -> None:
    saved = backup.backup(filled(path), tmp_path / "saved.db")
    before = content(path)
    encryption.encrypt(path, place)
    backup.restore(path, saved)
    assert in_the_clear(path.parent) == set()
    assert content(path)["messages"] == before["messages"]


@pytest.mark.parametrize("there", ["nothing", "a store in the clear"])
def test_an_encrypted_backup_is_not_decrypted_by_restoring_it(
    path: Path, place: str, tmp_path: Path, there: str
) -> None:
    encryption.encrypt(filled(path), place)
    before = content(path)
    saved = backup.backup(path, tmp_path / "saved.db")
    new = tmp_path / "new" / "credential.home.db"
    if there != "nothing":
        DirectStore(new).close()
    with pytest.raises(StoreKeyError, match="expected the key of the back-up"):
        backup.restore(new, saved)
    backup.restore(new, saved, source_place=place)
    assert key_place.read_note(new) == (place,)
    assert content(new)["messages"] == before["messages"]
    assert in_the_clear(new.parent) == set()


def test_what_was_taken_away_stays_so_between_encrypted_stores(path: Path, place: str, tmp_path: Path) -> None:
    store = DirectStore(path)
    fill(store)
    key = "INSERT INTO keys (id, name, scope, created, expires, revoked) VALUES ('k', '', '{}', 0, 9, NULL)"
    store.do(lambda tx: tx.run(key))
    store.close()
    saved = backup.backup(path, tmp_path / "saved.db")  # in the clear
    encryption.encrypt(path, place)
    store = DirectStore(path)
    store.do(lambda tx: tx.run("UPDATE keys SET revoked = 3"))
    store.close()
    backup.restore(path, saved)
    store = DirectStore(path)
    assert store.do(lambda tx: tx.one("SELECT revoked FROM keys")) == (3.0,)
    store.close()
