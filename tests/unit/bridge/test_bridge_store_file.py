"""The file: made, checked, set aside, migrated, backed up, restored, and full."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.home_store import KINDS, DirectStore, store_path

from cloudtolocalllm.bridge.store import (
    backup,
    changes,
    conversations,
    database,
    devices,
    key_place,
    messages,
    migrations,
    preferences,
    runs,
)
from cloudtolocalllm.bridge.store.errors import (
    ConflictError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreKeyError,
    StoreVersionError,
    TooOldError,
)
from cloudtolocalllm.bridge.store.messages import NewMessage
from cloudtolocalllm.bridge.store.runs import NewRun, Piece, TextKind
from cloudtolocalllm.bridge.store.worker import _reason
from cloudtolocalllm.sealed.device import device_id, public_point


@pytest.fixture(params=KINDS)
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return store_path(tmp_path / "data" / "credential.home.db", request.param)


def opened(path: Path, like: Path | None = None) -> sqlite3.Connection:
    """Open a file as it is, with the key of a store."""
    return database.raw(path, database.key_for(like or path))


def filled(path: Path) -> str:
    store = DirectStore(path)
    talk = store(conversations.create, "title").id
    for number in range(50):
        store(messages.add, talk, NewMessage("user", f"{number} " * 500))
    store.close()
    return talk


def titles(path: Path) -> list[str]:
    store = DirectStore(path)
    found = [c.title for c in store(conversations.page).conversations]
    store.close()
    return found


def test_the_file_is_the_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        store = DirectStore(path)
        store(conversations.create, "x")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_its_settings_are_the_safe_ones(path: Path) -> None:
    store = DirectStore(path)
    for pragma, value in {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "auto_vacuum": 2,
        "application_id": database.APPLICATION_ID,
    }.items():  # fmt: skip
        assert store.db.execute(f"PRAGMA {pragma}").fetchone() == (value,), pragma
    tables = store.db.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
    loose = {name for name, strict in tables if not strict}
    assert loose <= {"migration_version", "sqlite_schema", "sqlite_sequence"}, loose
    store.close()


def test_two_processes_make_it_at_the_same_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = database._run_migrations

    def slow(db: sqlite3.Connection) -> None:
        monkeypatch.setattr(database, "_run_migrations", made)
        filled(path)  # the other process
        made(db)

    monkeypatch.setattr(database, "_run_migrations", slow)
    assert titles(path) == ["title"]
    assert [file.name for file in path.parent.iterdir() if ".home.db." in file.name] == []


@pytest.mark.parametrize("harm", ["head", "middle", "cut", "text"])
def test_a_damaged_file_is_set_aside_and_the_newest_backup_offered(path: Path, harm: str) -> None:
    filled(path)
    backup.backup(path, database.backups_of(path) / "old.db")
    os.utime(database.backups_of(path) / "old.db", (1, 1))
    newest = backup.backup(path)
    raw = bytearray(path.read_bytes())
    if harm == "head":
        raw[:100] = b"\xff" * 100
    elif harm == "middle":
        raw[8192 : len(raw) - 4096] = b"\xa5" * (len(raw) - 12288)
    elif harm == "cut":
        del raw[len(raw) // 2 :]
    else:
        raw[:] = b"not a database at all, " * 500
    path.write_bytes(raw)
    if harm == "head" and key_place.read_note(path):
        # Not told from a wrong key: nothing is moved.
        with pytest.raises(StoreKeyError, match="damaged at its beginning: restore a back-up"):
            database.connect(path)
        assert path.read_bytes() == raw
        backup.restore(path, newest)
        assert titles(path) == ["title"]
        return
    with pytest.raises(StoreDamagedError) as caught:
        database.connect(path)
    assert str(newest) in str(caught.value)
    assert caught.value.path.read_bytes() == raw
    assert not path.exists()
    assert titles(path) == []  # a new one
    backup.restore(path, newest)
    assert titles(path) == ["title"]


def test_without_a_backup_the_message_says_so(path: Path) -> None:
    filled(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StoreDamagedError, match="no back-up was found"):
        database.connect(path)


@pytest.mark.parametrize("how", ["made anew", "restored"])
def test_a_log_that_was_left_over_is_not_applied_to_another_store(path: Path, how: str) -> None:
    filled(path)
    saved = backup.backup(path)
    store = DirectStore(path)
    for number in range(30):
        store(conversations.create, f"in the log {number}")
    log_of_it = path.with_name(path.name + "-wal").read_bytes()
    store.close()
    if how == "made anew":
        path.unlink()
    else:
        path.write_bytes(b"damaged" * 1000)
    left = path.with_name(path.name + "-wal")
    left.write_bytes(log_of_it)
    os.utime(left, (1, 1))
    if how == "restored":
        backup.restore(path, saved)
    assert titles(path) == ([] if how == "made anew" else ["title"])
    moved = [file for file in path.parent.rglob("*-wal") if file.read_bytes() == log_of_it]
    assert len(moved) == 1
    store = DirectStore(path)
    assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "credential.home.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match="another database"):
        database.connect(path)
    assert path.read_bytes() == before


def test_a_newer_programs_store_is_left_alone(path: Path) -> None:
    filled(path)
    with closing(opened(path)) as db:
        db.execute("UPDATE migration_version SET version = '20990101000000'")
    with pytest.raises(StoreVersionError, match="newer CloudToLocalLLM"):
        database.connect(path)
    place = "".join(key_place.read_note(path))
    with pytest.raises(StoreError, match="newer"):
        backup.restore(path.with_name("other.home.db"), path, source_place=place)


def later(upgrade: object) -> SimpleNamespace:
    def downgrade(db: sqlite3.Connection) -> None:
        raise NotImplementedError

    return SimpleNamespace(__name__="v20990101000000_later", upgrade=upgrade, downgrade=downgrade)


def test_a_migration_is_made_once_and_the_old_store_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    runs_of_it = []

    def upgrade(db: sqlite3.Connection) -> None:
        runs_of_it.append(1)
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE later (x INTEGER) STRICT")

    monkeypatch.setattr(database, "ALL", (*migrations.ALL, later(upgrade)))
    monkeypatch.setattr(database, "NEWEST", "20990101000000")
    for _ in range(2):
        store = DirectStore(path)
        assert store.db.execute("SELECT count(*) FROM later").fetchone() == (0,)
        store.close()
    assert runs_of_it == [1]
    (kept,) = database.backups_of(path).iterdir()
    with closing(opened(kept, path)) as db:
        assert database.version(db) == "20261123000000"


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)

    def upgrade(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE later (x INTEGER) STRICT")
        db.execute("DELETE FROM messages")
        db.execute("INSERT INTO nowhere VALUES (1)")

    with monkeypatch.context() as patch:
        patch.setattr(database, "ALL", (*migrations.ALL, later(upgrade)))
        patch.setattr(database, "NEWEST", "20990101000000")
        with pytest.raises(StoreError):
            database.connect(path)
    store = DirectStore(path)
    assert store.db.execute("SELECT count(*) FROM messages").fetchone() == (50,)
    assert database.version(store.db) == "20261123000000"
    store.close()


# --- a full disk --------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_nothing_that_was_stored(path: Path) -> None:
    store = DirectStore(path)
    talk = store(conversations.create, "title").id
    note = store(messages.add, talk, NewMessage("user", "hi"))
    run = store(runs.begin, NewRun(talk, note.id, "m"))
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages + 20}")
    text = "0123456789" * 400
    stored = 0
    fault: sqlite3.Error | None = None
    while fault is None:
        assert stored < 100 * len(text)
        try:
            store(runs.append, run.id, [Piece(stored, TextKind.CONTENT, text)])
            stored += len(text)
        except sqlite3.OperationalError as error:
            fault = error
    assert isinstance(_reason(fault), StoreFullError)
    assert stored > 0
    store.reopen()
    assert store(runs.get, run.id).size == stored
    store(lambda tx: runs.left_over(tx, within=0))
    assert store(messages.get, run.message).content == "0123456789" * (stored // 10)
    assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


# --- back-ups -----------------------------------------------------------------------------------------------------


def test_a_backup_is_one_private_file_made_while_the_store_is_in_use(path: Path, tmp_path: Path) -> None:
    filled(path)
    store = DirectStore(path)
    store(conversations.create, "in the log only")
    target = backup.backup(path, tmp_path / "backup.db")
    store(conversations.create, "later")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["backup.db", "data"] or target.exists()
    assert not list(tmp_path.glob("*-wal"))
    with closing(opened(target, path)) as db:
        assert {row[0] for row in db.execute("SELECT title FROM conversations")} == {"title", "in the log only"}
    store.close()


def test_a_backup_replaces_no_file(path: Path, tmp_path: Path) -> None:
    filled(path)
    target = tmp_path / "precious"
    target.write_text("x")
    with pytest.raises(StoreError, match="expected no file"):
        backup.backup(path, target)
    assert target.read_text() == "x"
    with pytest.raises(StoreError, match="expected a home store"):
        backup.backup(tmp_path / "none.home.db")


def test_a_restore_brings_the_rest_back_but_nothing_that_was_taken_away(path: Path) -> None:
    phone = public_point(ec.generate_private_key(ec.SECP256R1()))
    store = DirectStore(path)
    talk = store(conversations.create, "before").id
    device = store(devices.pair, phone, "phone", approved_by="link")
    store(preferences.note_statement_seq, 5)
    key = "INSERT INTO keys (id, name, scope, created, expires, revoked) VALUES ('k', '', '{}', 0, 9, ?)"
    store.do(lambda tx: tx.run(key, None))
    saved = backup.backup(path)
    epoch, newest = store(changes.epoch), store(changes.newest)
    store(conversations.delete, talk)
    store(conversations.create, "after")
    store(devices.remove, device.id)
    store(preferences.note_statement_seq, 9)
    store.do(lambda tx: tx.run("UPDATE keys SET revoked = 3"))
    with pytest.raises(StoreInUseError, match="stop the bridge"):
        backup.restore(path, saved)
    store.close()
    before = backup.restore(path, saved)
    assert before is not None
    assert titles(path) == ["before"]
    with closing(opened(before, path)) as db:
        assert db.execute("SELECT title FROM conversations").fetchall() == [("after",)]
    store.reopen()
    assert store(devices.points) == {}
    with pytest.raises(ConflictError):
        store(devices.pair, phone, "phone", approved_by="link")
    assert store(preferences.statement_seq) == 9
    assert store.do(lambda tx: tx.one("SELECT revoked FROM keys")) == (3.0,)
    with pytest.raises(TooOldError):
        store(changes.since, newest, epoch)
    store.close()


def test_a_restore_brings_no_device_back_that_a_new_identity_forgot(path: Path) -> None:
    phone, laptop, tablet = (public_point(ec.generate_private_key(ec.SECP256R1())) for _ in range(3))
    store = DirectStore(path)
    for point, name in ((phone, "phone"), (laptop, "laptop")):
        store(devices.pair, point, name, approved_by="link")
    store(devices.wait, tablet, "tablet")
    first = backup.backup(path, path.with_name("first.db"))
    assert store(devices.forget_all) == 3
    store(devices.pair, laptop, "laptop", approved_by="link")  # again, with the key it has
    second = backup.backup(path, path.with_name("second.db"))
    store.close()
    for _ in range(2):  # the mark is restored too
        backup.restore(path, first)
        store.reopen()
        assert store(devices.points) == {device_id(laptop): laptop}
        assert [device.name for device in store(devices.all_of)] == ["laptop"]
        store.close()
    store.reopen()
    assert store(devices.pair, phone, "phone", approved_by="link").paired, "its key is good for a new pairing"
    store.close()
    backup.restore(path, second)  # of the identity of now: nothing of it is lost
    store.reopen()
    assert set(store(devices.points).values()) == {laptop}
    store(devices.forget_all)
    store.close()
    backup.restore(path, second)
    store.reopen()
    assert store(devices.all_of) == []
    store.close()


@pytest.mark.parametrize("content", [b"", b"x" * 9000])
def test_what_is_no_backup_is_not_restored(path: Path, tmp_path: Path, content: bytes) -> None:
    filled(path)
    (tmp_path / "no.db").write_bytes(content)
    with pytest.raises(StoreError, match="expected a sound back-up"):
        backup.restore(path, tmp_path / "no.db")
    with pytest.raises(StoreError, match="got no file"):
        backup.restore(path, tmp_path / "nothing.db")
    assert titles(path) == ["title"]
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
