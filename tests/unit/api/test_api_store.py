import contextlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_clock import FakeClock

from cloudtolocalllm.api.store import MAX_NAME, MAX_PER_USER, VERSION, Store, StoreError
from cloudtolocalllm.auth.credentials import parse_credential
from cloudtolocalllm.auth.keys import parse_key
from cloudtolocalllm.auth.links import LIFETIME, parse_link_token


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cloud" / "cloud.db"


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Iterator[Store]:
    with contextlib.closing(Store(path, clock=clock)) as made:
        yield made


def link_hash(store: Store, user: str) -> bytes:
    hash_ = parse_link_token(store.create_sign_in_link(user)[0])
    assert hash_ is not None
    return hash_


def test_files_are_the_owners_alone(store: Store, path: Path) -> None:
    store.create_user()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {p.name for p in path.parent.iterdir()} == {"cloud.db", "cloud.db-wal", "cloud.db-shm"}
    assert {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {0o600}


def test_the_owner_is_the_first_user_and_stays(store: Store, path: Path, clock: FakeClock) -> None:
    owner = store.owner()
    clock.advance(1)
    other = store.create_user()
    assert store.owner() == owner != other
    with contextlib.closing(Store(path)) as again:
        assert again.owner() == owner
    assert owner.startswith("u_")
    assert len(owner) == 22


def test_a_key_is_found_by_its_id_and_kept_as_a_hash(store: Store, path: Path) -> None:
    record, text = store.create_key(store.owner(), " My\nkey ")
    assert record.name == "Mykey"
    presented = parse_key(text)
    assert presented is not None
    found = store.find_key(presented.id)
    assert found == record
    assert presented.matches(found.hash)
    assert text[-43:].encode() not in path.read_bytes() + path.with_name("cloud.db-wal").read_bytes()


def test_keys_expire(store: Store, clock: FakeClock) -> None:
    record, _ = store.create_key(store.owner(), "x", expires=clock.now + 10)
    assert store.find_key(record.id) is not None
    clock.advance(10)
    assert store.find_key(record.id) is None
    assert store.list_keys(store.owner()) == [record]


def test_nobody_touches_anothers(store: Store) -> None:
    alice, bob = store.create_user(), store.create_user()
    key, _ = store.create_key(alice, "key")
    bridge, _ = store.create_bridge(alice, "bridge")
    assert store.list_keys(bob) == []
    assert store.list_bridges(bob) == []
    assert not store.delete_key(bob, key.id)
    assert not store.delete_bridge(bob, bridge.id)
    assert not store.rename_bridge(bob, bridge.id, "stolen")
    assert store.list_keys(alice) == [key]
    assert store.list_bridges(alice) == [bridge]
    assert store.delete_key(alice, key.id)
    assert store.delete_bridge(alice, bridge.id)
    assert store.find_key(key.id) is None
    assert store.find_bridge(bridge.id) is None


def test_bridges_are_renamed_and_seen(store: Store) -> None:
    user = store.owner()
    record, text = store.create_bridge(user, "x")
    presented = parse_credential(text)
    assert presented is not None
    assert presented.id == record.id
    assert store.rename_bridge(user, record.id, "y" * 500)
    store.touch_bridges([(record.id, 5.0, "0.1"), ("unknown", 1.0, "")])
    found = store.find_bridge(record.id)
    assert found is not None
    assert (found.name, found.last_seen, found.version) == ("y" * MAX_NAME, 5.0, "0.1")
    assert store.bridge_ids() == {record.id}


def test_uses_of_keys_are_noted(store: Store) -> None:
    record, _ = store.create_key(store.owner(), "x")
    store.touch_keys({record.id: 7.0, "gone": 1.0})
    found = store.find_key(record.id)
    assert found is not None
    assert found.last_used == 7.0


def test_a_link_is_used_once(store: Store) -> None:
    user = store.owner()
    hash_ = link_hash(store, user)
    assert store.use_sign_in_link(hash_) == user
    assert store.use_sign_in_link(hash_) is None
    assert store.use_sign_in_link(bytes(32)) is None


def test_a_link_dies(store: Store, clock: FakeClock) -> None:
    user = store.owner()
    hash_ = link_hash(store, user)
    clock.advance(LIFETIME)
    assert store.use_sign_in_link(hash_) is None


def test_used_up_and_dead_links_are_not_kept(store: Store, clock: FakeClock, path: Path) -> None:
    for _ in range(3):
        link_hash(store, store.owner())
        clock.advance(LIFETIME)
    store.create_sign_in_link(store.owner())
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM sign_in_links").fetchone() == (1,)


def test_a_session_is_revoked_until_it_would_have_ended(store: Store, clock: FakeClock, path: Path) -> None:
    store.revoke_session("s_1", clock.now + 10)
    store.revoke_session("s_1", clock.now + 10)
    assert store.is_session_revoked("s_1")
    assert not store.is_session_revoked("s_2")
    clock.advance(10)
    store.revoke_session("s_2", clock.now + 10)
    assert not store.is_session_revoked("s_1")


def test_what_one_user_may_have_is_bounded(store: Store) -> None:
    user = store.owner()
    for n in range(MAX_PER_USER):
        store.create_key(user, str(n))
        store.create_bridge(user, str(n))
    with pytest.raises(StoreError, match=f"at most {MAX_PER_USER}"):
        store.create_key(user, "x")
    with pytest.raises(StoreError, match=f"at most {MAX_PER_USER}"):
        store.create_bridge(user, "x")
    store.create_key(store.create_user(), "another user's")


def test_an_unknown_user_gets_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="no such user"):
        store.create_key("u_nobody", "x")
    assert not store.has_user("u_nobody")
    assert store.has_user(store.owner())


def test_another_connection_sees_changes_at_once(store: Store, path: Path) -> None:
    with contextlib.closing(Store(path)) as other:
        assert store.changed_elsewhere()  # the first time, nothing is known
        assert not store.changed_elsewhere()
        record, _ = other.create_key(other.owner(), "x")
        assert store.find_key(record.id) == record
        assert store.changed_elsewhere()
        store.delete_key(record.user, record.id)
        assert other.find_key(record.id) is None
        assert not store.changed_elsewhere()


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match=f"expected schema {VERSION} .* got {VERSION + 1}"):
        Store(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match="expected a database"):
        Store(path)


def test_processes_that_start_at_once_agree_on_the_owner(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cloudtolocalllm.api.store import Store\n"
        "store = Store(Path(sys.argv[1])); store.create_key(store.owner(), 'x'); print(store.owner())"
    )
    command = [sys.executable, "-c", code, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    with contextlib.closing(Store(path)) as store:
        assert len(store.list_keys(store.owner())) == 4
